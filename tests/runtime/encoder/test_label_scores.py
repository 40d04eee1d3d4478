"""Scores of labels by arithmetic, on stand-ins for models: of images, of recordings, and of labels of one's own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.bundle.manifest import ContrastInfo
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.encoder import image_classification as images
from triform.runtime.encoder import zero_shot as module
from triform.runtime.encoder.audio_classification import classify_audio
from triform.runtime.encoder.image_classification import label_scores, match_labels
from triform.runtime.encoder.zero_shot import zero_shot
from triform.runtime.errors import BundleError, InputError, UnsupportedError

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def model_of(labels, problem_type=SINGLE, **info):
    return SimpleNamespace(
        info=SimpleNamespace(labels=list(labels), problem_type=problem_type, **info), require=lambda *names: None
    )


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (SINGLE, [("b", 3 / 6), ("c", 2 / 6), ("a", 1 / 6)]),
        (MULTI, [("b", 3 / 4), ("c", 2 / 3), ("a", 1 / 2)]),
        (REGRESSION, [("b", np.log(3)), ("c", np.log(2)), ("a", 0)]),
    ],
)  # fmt: skip
def test_labels_that_a_model_was_trained_on(kind, expected):
    found = label_scores(model_of("abc", kind), np.log([1, 3, 2]).astype(np.float32))
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])


def test_equal_scores_keep_the_order_of_labels():
    assert [label for label, _ in label_scores(model_of("cab"), np.zeros(3, np.float32))] == ["c", "a", "b"]


def test_labels_that_do_not_fit():
    with pytest.raises(
        BundleError, match=r"^the bundle names 2 labels for a graph that gives 3; export the model again$"
    ):
        label_scores(model_of("ab"), np.zeros(3, np.float32))
    for kind in (None, "other"):
        with pytest.raises(BundleError, match=r"^the bundle does not say what its labels' scores are"):
            label_scores(model_of("ab", kind), np.zeros(2, np.float32))


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_labels_for_images(monkeypatch, scores):
    """Images and texts are vectors; 2 times their product, and 1 more."""
    texts = {"an a.": [1.0, 0.0], "an b.": [0.5, 0.5], "an c.": [0.0, -1.0]}
    monkeypatch.setattr(images, "embed", lambda model, sentences: (np.array(texts[text]) for text in sentences))
    monkeypatch.setattr(images, "_outputs", lambda model, given, name: (np.array(vector) for vector in given))
    model = model_of("", contrast=ContrastInfo(2.0, 1.0, scores))
    (found,) = match_labels(model, [[1.0, 3.0]], ["a", "b", "c"], template="an {}.")
    logits = {"a": 3.0, "b": 5.0, "c": -5.0}
    total = sum(np.exp(value) for value in logits.values())
    expected = {
        label: np.exp(value) / total if scores == "softmax" else sigmoid(value) for label, value in logits.items()
    }
    assert [label for label, _ in found] == ["b", "a", "c"]
    assert dict(found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "template", "said"),
    [
        ([], "{}", "give at least one label, and none that is empty"), (["a", " "], "{}", "give at least one label"),
        (["a"], "a photo", "a template has {} once, where the label belongs: 'a photo'"),
        (["a"], "{} {}", "a template has"),
    ],
)  # fmt: skip
def test_labels_for_images_that_are_refused(labels, template, said):
    model = model_of("", contrast=ContrastInfo(1.0, 0.0, "softmax"))
    with pytest.raises(InputError) as caught:
        next(match_labels(model, [], labels, template=template))
    assert str(caught.value).startswith(said)
    with pytest.raises(BundleError, match=r"^the bundle does not say how images and texts are compared"):
        next(match_labels(model_of("", contrast=None), [], ["a"]))


def hypotheses(monkeypatch, table):
    """Lets the model give these logits for each hypothesis, and remembers what it was asked."""
    asked = []

    def label_logits(model, pairs, purpose):
        for text, hypothesis in pairs:
            asked.append((text, hypothesis))
            yield np.array(table[hypothesis], np.float32)

    monkeypatch.setattr(module, "label_logits", label_logits)
    return asked


NLI = ["CONTRADICTION", "neutral", "Entailment"]


def test_labels_of_ones_own_are_compared_by_what_is_entailed(monkeypatch):
    asked = hypotheses(monkeypatch, {"It is x.": [0, 9, np.log(1)], "It is y.": [5, 9, np.log(3)]})
    found = list(zero_shot(model_of(NLI), ["s", "t"], ["x", "y"], template="It is {}."))
    assert asked == [(text, f"It is {label}.") for text in "st" for label in "xy"]
    assert found == [[("y", pytest.approx(0.75)), ("x", pytest.approx(0.25))]] * 2


@pytest.mark.parametrize(
    ("names", "logits", "score"),
    [
        (NLI, [0, 9, np.log(3)], 0.75), (["entailment", "neutral", "contradiction"], [np.log(3), 9, 0], 0.75),
        (["entailment", "not_entailment"], [np.log(3), 0], 0.75),
        (["not_entailment", "entailment"], [0, np.log(3)], 0.75),
        # The label for contradiction is found by its name.
        (["neutral", "contra", "entail"], [9, 0, np.log(3)], 0.75), (["x", "y", "entail"], [0, 9, np.log(3)], 0.75),
    ],
)  # fmt: skip
def test_a_label_by_itself_is_entailed_or_contradicted(monkeypatch, names, logits, score):
    hypotheses(monkeypatch, {"This example is x.": logits, "This example is y.": [0] * len(logits)})
    assert next(zero_shot(model_of(names), ["s"], ["x"])) == [("x", pytest.approx(score))]
    found = next(zero_shot(model_of(names), ["s"], ["x", "y"], multi_label=True))
    assert found == [("x", pytest.approx(score)), ("y", pytest.approx(0.5))]


@pytest.mark.parametrize("names", [[], ["entailment"], ["good", "bad"], ["not_entailment", "other"]])
def test_models_for_something_else(names):
    with pytest.raises(
        UnsupportedError, match="needs a model trained on natural language inference, with a label called"
    ):
        next(zero_shot(model_of(names), ["s"], ["x"]))


@pytest.mark.parametrize("template", ["no place", "{", "{0.x}", "{a}", "{1}"])
def test_templates_without_a_place(template):
    with pytest.raises(InputError, match=r"must have one {}, where the label goes$"):
        next(zero_shot(model_of(NLI), ["s"], ["x"], template=template))
    with pytest.raises(InputError, match=r"^the label None is not a text$"):
        next(zero_shot(model_of(NLI), ["s"], ["rain", None]))
    with pytest.raises(InputError, match=r"^give at least one label$"):
        next(zero_shot(model_of(NLI), ["s"], []))


def hearing(min_length=3, longest=30.0):
    """A model of two labels whose logits are the number of samples and 0."""
    step = SimpleNamespace(
        inputs=["input_values"],
        feed=lambda arrays, names: [np.array([[arrays["input_values"].shape[1], 0]], np.float32)],
    )
    audio = AudioInfo("waveform", 10, 1, 0.0, longest=longest)
    return SimpleNamespace(
        info=SimpleNamespace(labels=["n", "zero"], problem_type=REGRESSION, audio=audio, min_length=min_length),
        step=step, require=lambda *names: None,
    )  # fmt: skip


def test_recordings():
    model = hearing()
    assert list(classify_audio(model, [np.zeros(3), np.zeros(25)])) == [[("n", n), ("zero", 0.0)] for n in (3.0, 25.0)]
    for count in (0, 2):
        with pytest.raises(
            InputError, match=rf"^a recording of 0\.{count}00 s is too short for this model; leave it out$"
        ):
            next(classify_audio(model, [np.zeros(count)]))


def test_the_longest_recording():
    model = hearing(longest=2.0)
    assert next(classify_audio(model, [np.zeros(20)]))[0] == ("n", 20.0)
    with pytest.raises(
        InputError, match=r"^a recording of 2\.1 s is longer than the 2 s that this model has positions"
    ):
        next(classify_audio(model, [np.zeros(21)]))
    # A model of any length cuts nothing.
    assert next(classify_audio(hearing(), [np.zeros(400)]))[0] == ("n", 400.0)
    model.info.audio = None
    with pytest.raises(BundleError, match=r"^the bundle does not say how it reads audio; export the model again$"):
        next(classify_audio(model, [np.zeros(20)]))
