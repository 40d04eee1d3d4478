"""`triform classify` and what it calls, against transformers' pipelines on the same checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import pipeline

from tests.checkpoints.encoders import bert_folder
from tests.helpers.bundles import change, read_manifest_json
from tests.helpers.commands import invoke, one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.encoder.classification import classify, scores
from triform.runtime.encoder.zero_shot import _find_labels, zero_shot
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.opening import load_encoder

TEXTS = [
    "The ferry left the harbor before dawn.",
    "Rain.",
    "",
    "Nobody in the village had seen a winter like that one, and the oldest of them said so every evening.",
    "Two boats, three nets and not a single fish!",
]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[3], TEXTS[4])]
LABELS = ["weather", "the sea and its fish", "politics"]
TEMPLATE = "It is about {}."
# What each checkpoint adds to the config, by its name. One label without a problem type: see test_reranking.
KINDS = {
    "nli": {
        "num_hidden_layers": 2,
        "id2label": {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"},
        "label2id": {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2},
    },
    "topics": {
        "num_hidden_layers": 1,
        "id2label": {0: "sea", 1: "land", 2: "air", 3: "fire"},
        "problem_type": "multi_label_classification",
    },
    "stars": {"num_hidden_layers": 1, "id2label": {0: "stars"}, "problem_type": "regression"},
}


@pytest.mark.parametrize(
    ("logits", "kind", "expected"),
    [
        ([math.log(3), 0], "single_label_classification", [0.75, 0.25]),
        ([math.log(3), 0], None, [0.75, 0.25]),
        ([math.log(3), 0], "multi_label_classification", [0.75, 0.5]),
        ([math.log(3), 0], "regression", [math.log(3), 0]),
        ([math.log(6), math.log(3), 0], "single_label_classification", [0.6, 0.3, 0.1]),
        # One label has the probability that it is right.
        ([math.log(3)], "single_label_classification", [0.75]),
        ([math.log(3)], None, [0.75]),
        ([math.log(3)], "regression", [math.log(3)]),
    ],
)
def test_scores_of_logits(logits, kind, expected):
    np.testing.assert_allclose(scores(np.array(logits, np.float32), kind), expected, rtol=1e-6)
    np.testing.assert_allclose(scores(np.array([logits] * 3, np.float32), kind), [expected] * 3, rtol=1e-6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoint and bundle of each kind, exported when first asked for."""
    folder, found = tmp_path_factory.mktemp("classifiers"), {}

    def make(kind):
        if kind not in found:
            source = bert_folder(folder / kind, "BertForSequenceClassification", initializer_range=0.1, **KINDS[kind])
            export(str(source), folder / f"{kind}.bundle", ExportOptions(quantize="none"))
            found[kind] = (source, folder / f"{kind}.bundle")
        return found[kind]

    return make


@pytest.fixture
def damaged(made, tmp_path):
    """A copy of the NLI bundle whose labels a test may change."""

    def with_labels(labels):
        bundle = shutil.copytree(made("nli")[1], tmp_path / "changed")
        change(bundle, encoder={**read_manifest_json(bundle)["encoder"], "labels": labels})
        return bundle

    return with_labels


def assert_same(found, expected):
    """Labels in the pipeline's order, each with its score."""
    assert [label for label, _ in found] == [one["label"] for one in expected]
    assert [score for _, score in found] == pytest.approx([one["score"] for one in expected], abs=2e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_scores_are_the_pipelines(made, kind):
    source, bundle = made(kind)
    reference = pipeline("text-classification", model=str(source))
    model = load_encoder(bundle)
    for text, found in zip(TEXTS, model.classify(TEXTS), strict=True):
        assert_same(found, reference(text, top_k=None))
    for pair, found in zip(PAIRS, model.classify(PAIRS), strict=True):
        assert_same(found, reference({"text": pair[0], "text_pair": pair[1]}, top_k=None))
    spread = [dict(found)[model.info.labels[0]] for found in classify(model, TEXTS)]
    assert max(spread) - min(spread) > 1e-3


def test_a_batch_gives_what_each_text_gives_alone(made):
    model = load_encoder(made("nli")[1])
    together = list(classify(model, TEXTS * 3))
    alone = [next(classify(model, [text])) for text in TEXTS * 3]
    for one, other in zip(together, alone, strict=True):
        assert dict(one) == pytest.approx(dict(other), abs=1e-6)


def test_any_number_of_texts(made):
    model = load_encoder(made("stars")[1])
    assert list(classify(model, [])) == []
    count = 5000
    found = list(classify(model, (TEXTS[index % 2] for index in range(count))))
    assert len(found) == count
    assert [round(one[0][1], 5) for one in found[:2]] * (count // 2) == [round(one[0][1], 5) for one in found]


def test_a_text_that_cannot_be_read_is_named(made):
    with pytest.raises(InputError, match="text 301 is not valid Unicode at character 3"):
        list(classify(load_encoder(made("stars")[1]), [*["a"] * 300, "a \ud800"]))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:1]])
def test_zero_shot_scores_are_the_pipelines(made, labels, multi_label):
    source, bundle = made("nli")
    reference = pipeline("zero-shot-classification", model=str(source))
    texts = [text for text in TEXTS if text]
    ours = load_encoder(bundle).zero_shot(texts, labels, template=TEMPLATE, multi_label=multi_label)
    for text, found in zip(texts, ours, strict=True):
        expected = reference(text, labels, hypothesis_template=TEMPLATE, multi_label=multi_label)
        pairs = zip(expected["labels"], expected["scores"], strict=True)
        assert_same(found, [{"label": label, "score": score} for label, score in pairs])


def test_zero_shot_cuts_the_text_and_not_the_label(made):
    source, bundle = made("nli")
    text = " ".join(TEXTS) * 3
    expected = pipeline("zero-shot-classification", model=str(source))(text, LABELS)
    (found,) = zero_shot(load_encoder(bundle), [text], LABELS)
    assert dict(found) == pytest.approx(dict(zip(expected["labels"], expected["scores"], strict=True)), abs=2e-5)


def test_contradiction_goes_by_name(made, damaged):
    """The same weights with labels in another order: the softmax of the two logits, taken by hand."""
    text, label = TEXTS[0], LABELS[0]
    expected = pipeline("text-classification", model=str(made("nli")[0]))(
        {"text": text, "text_pair": TEMPLATE.format(label)}, top_k=None
    )
    chance = {one["label"]: one["score"] for one in expected}
    model = load_encoder(damaged(["neutral", "contradiction", "entailment"]))
    ((found,),) = zero_shot(model, [text], [label], template=TEMPLATE)
    # Column 1 is called NEUTRAL in the checkpoint.
    assert found[1] == pytest.approx(chance["ENTAILMENT"] / (chance["ENTAILMENT"] + chance["NEUTRAL"]), abs=2e-5)


@pytest.mark.parametrize("template", ["no place", "{", "{} {x}", "{1}", "{.nothing}"])
def test_a_template_without_a_place(made, template):
    with pytest.raises(InputError, match="where the label goes"):
        next(zero_shot(load_encoder(made("nli")[1]), TEXTS, LABELS, template=template))


def test_no_labels(made):
    with pytest.raises(InputError, match="at least one label"):
        next(zero_shot(load_encoder(made("nli")[1]), TEXTS, []))


def test_a_model_without_entailment(made):
    with pytest.raises(UnsupportedError, match=r"a label called entailment; this one has: sea, land, air, fire$"):
        next(zero_shot(load_encoder(made("topics")[1]), TEXTS, LABELS))


def test_labels_that_are_not_the_graphs(damaged):
    with pytest.raises(BundleError, match=r"encoder\.labels must be as many as .* logits, not '2 labels'"):
        load_encoder(damaged(["yes", "no"]))


def test_lines_of_output(capsys, made):
    source, bundle = made("nli")
    expected = pipeline("text-classification", model=str(source))(["a  cat\n", "a dog"], top_k=2)
    code, out, err = invoke(capsys, "classify", bundle, "a  cat\n", "a dog", "--top-k", 2)
    lines = [
        f"{one['score']:.4f}\t{one['label']}\t{text}"
        for text, found in zip(["a cat", "a dog"], expected, strict=True)
        for one in found
    ]
    assert (code, out.splitlines(), err) == (0, lines, "")
    _, best, _ = invoke(capsys, "classify", bundle, "a  cat\n", "a dog")
    assert best.splitlines() == [lines[0], lines[2]]


def test_json_lines_in_and_out(capsys, made, tmp_path):
    file = tmp_path / "notes.jsonl"
    file.write_text('{"id": 7, "note": "a cat"}\nbroken\n{"id": 8, "note": "a dog"}\n')
    arguments = ("classify", made("topics")[1], "--file", file, "--field", "note", "--json", "--top-k", 4)
    code, out, err = invoke(capsys, *arguments)
    assert code == 2
    assert "line 2" in one_line(err)
    code, out, err = invoke(capsys, *arguments, "--skip-errors")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [one["id"] for one in found], [one["note"] for one in found]) == (0, [7, 8], ["a cat", "a dog"])
    assert "skipped 1 input that could not be used" in err
    expected = pipeline("text-classification", model=str(made("topics")[0]))(["a cat", "a dog"], top_k=None)
    for one, other in zip(found, expected, strict=True):
        assert_same([(label["label"], label["score"]) for label in one["labels"]], other)


def test_labels_of_the_users_own(capsys, made):
    source, bundle = made("nli")
    expected = pipeline("zero-shot-classification", model=str(source))(TEXTS[0], LABELS[::2], multi_label=True)
    code, out, _ = invoke(capsys, "classify", bundle, TEXTS[0], "--labels", "weather, politics,", "--multi-label")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[1:] for row in rows] == [[label, TEXTS[0]] for label in expected["labels"]]
    # Half of the last of four digits, and what two programs differ by: a score may lie where rounding turns.
    assert [float(row[0]) for row in rows] == pytest.approx(expected["scores"], rel=0, abs=5e-5 + 2e-6)


def test_long_texts_are_cut_and_said_so(capsys, made):
    long = "word " * 200
    code, _, err = invoke(capsys, "classify", made("stars")[1], long)
    assert code == 0
    assert "cut 1 text longer than 96 tokens" in err
    code, out, err = invoke(capsys, "classify", made("stars")[1], long, "--strict")
    assert (code, out) == (2, "")
    assert "text 1 is longer than the model's 96 tokens" in one_line(err)


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "text"),
    [
        ("nli", ["--top-k", "0"], 2, "--top-k must be at least 1"),
        ("nli", ["--multi-label"], 2, "--multi-label needs --labels"),
        ("nli", ["--hypothesis-template", "{}"], 2, "--hypothesis-template needs --labels"),
        ("nli", ["--labels", " , "], 2, "at least one label"),
        ("nli", ["--labels", "a", "--hypothesis-template", "b"], 2, "where the label goes"),
        ("nli", ["--file", "nowhere.txt"], 2, "not both"),
        ("stars", ["--labels", "a,b"], 1, "natural language inference"),
    ],
)
def test_bad_options(capsys, made, kind, arguments, code, text):
    found, out, err = invoke(capsys, "classify", made(kind)[1], "a text", *arguments)
    assert (found, out) == (code, "")
    assert text in one_line(err)


@pytest.mark.parametrize(
    ("labels", "entailment", "contradiction"),
    [
        (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], 2, 0),
        (["entailment", "neutral", "contradiction"], 0, 2),
        (["entailment", "contradiction", "neutral"], 0, 1),
        (["entailment", "not_entailment"], 0, 1),
        (["not_entailment", "entailment"], 1, 0),
        # Without a name transformers takes the last where the first is the entailment, and otherwise the first.
        (["LABEL_0", "entails", "LABEL_2"], 1, 0),
        (["LABEL_0", "LABEL_1", "entails"], 2, 0),
        (["entails", "LABEL_1", "LABEL_2"], 0, 2),
    ],
)
def test_which_label_says_what(labels, entailment, contradiction):
    model = SimpleNamespace(require=lambda *_: None, info=SimpleNamespace(labels=labels))
    assert _find_labels(model) == (entailment, contradiction)
