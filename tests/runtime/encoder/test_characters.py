"""A model that reads characters, through the commands: every answer is transformers' of that text alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CanineTokenizer

from tests.checkpoints.encoder_families import build_encoder
from tests.helpers.bundles import read_manifest_json, write_manifest
from tests.helpers.commands import invoke, one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples import texts
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.encoder.answering import answer
from triform.runtime.encoder.classification import classify
from triform.runtime.encoder.model import Encoder
from triform.runtime.encoder.tagging import tag
from triform.runtime.errors import BundleError, InputError
from triform.runtime.opening import load_encoder

LONG = texts.read_text("evaluation")[:700]
MOST = 200
TEXTS = [
    "ab", "A lamp in the cafe\u0301 of Zoë.", "日本語の灯台", "ba", "👩\u200d👧 🇫🇷 \U0010ffff\ue004", "  \n\t", "zoë",
    LONG[:150], LONG[: MOST - 2], LONG[7:22], LONG[100:129], LONG[30:45],
]  # fmt: skip
NAMES = ("O", "B-PER", "I-PER", "LOC")


@dataclass(frozen=True)
class Subject:
    checkpoint: Path
    bundle: Path
    encoder: Encoder
    model: Any
    tokenizer: Any

    def of(self, text, pair=None):
        """What transformers says of one text, which it feeds without padding."""
        encoded = self.tokenizer(text, pair, return_tensors="pt", truncation=True, max_length=MOST)
        with torch.no_grad():
            return self.model(**encoded)


def subject(folder, architecture, options, **changes):
    model = build_encoder("canine", architecture, **changes)
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    model.save_pretrained(checkpoint)
    tokenizer = CanineTokenizer(model_max_length=MOST)
    tokenizer.save_pretrained(checkpoint)
    export(str(checkpoint), bundle, options)
    model.set_attn_implementation("eager")
    return Subject(checkpoint, bundle, load_encoder(bundle, threads=1), model, tokenizer)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return subject(tmp_path_factory.mktemp("canine"), None, ExportOptions(quantize="none", hidden_states=True))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    folder = tmp_path_factory.mktemp("canine-tags")
    return subject(folder, "CanineForTokenClassification", ExportOptions(quantize="none"), **labels)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("canine-answers")
    return subject(folder, "CanineForQuestionAnswering", ExportOptions(quantize="none"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("canine-int8")
    return subject(folder, "CanineForSequenceClassification", ExportOptions(quantize="int8"), num_labels=3)


def assert_close(found, expected):
    assert np.abs(found - expected).max() <= 5e-4 * np.abs(expected).max()


def test_manifest_says_what_a_runtime_must_know(embedder):
    manifest = open_bundle(embedder.bundle).manifest
    assert manifest.encoder.equal_lengths
    assert (manifest.encoder.min_length, manifest.max_length, manifest.vocab_size) == (4, MOST, 0x110000)
    assert manifest.tokenizer.file is None
    assert manifest.tokenizer.code_points.first == 0xE000
    assert [info.name for info in manifest.graphs["encoder"].inputs] == ["input_ids", "token_type_ids"]
    assert sorted(manifest.files) == ["encoder.onnx", "encoder.onnx.data"]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("tokenizer", "code_points"), None, "tokenizer.file must be a file, or null with code_points"),
        (("tokenizer", "file"), "encoder.onnx", "tokenizer.file must be a file, or null with code_points"),
        (
            ("tokenizer", "code_points", "first"),
            0x110000,
            "tokenizer.code_points.first must be a token id from 0 to 1114111",
        ),
        (("tokenizer", "code_points", "special"), [-1], r"tokenizer.code_points.special\[0\] must be a token id"),
        (("encoder", "min_length"), 0, "encoder.min_length must be at least 1"),
    ],
)
def test_damaged_manifests(embedder, tmp_path, place, value, problem):
    content = read_manifest_json(embedder.bundle)
    *way, last = place
    inner = content
    for key in way:
        inner = inner[key]
    inner[last] = value
    write_manifest(tmp_path, content)
    with pytest.raises(BundleError, match=problem):
        open_bundle(tmp_path)


def test_embeddings_of_ragged_texts(embedder):
    expected = np.array([embedder.of(text).last_hidden_state[0].mean(0).numpy() for text in TEXTS])
    together = embedder.encoder.embed(TEXTS)
    assert_close(together, expected)
    assert_close(np.concatenate([embedder.encoder.embed([text]) for text in TEXTS]), expected)
    assert embedder.encoder.reader().truncated == 0


def test_what_is_too_long_is_cut(embedder):
    assert_close(embedder.encoder.embed([LONG])[0], embedder.of(LONG).last_hidden_state[0].mean(0).numpy())
    assert embedder.encoder.reader().truncated == 1
    embedder.encoder.reader().truncated = 0


@pytest.mark.parametrize(("text", "tokens"), [("", 2), ("x", 3)])
def test_texts_that_transformers_cannot_read(embedder, capsys, text, tokens):
    with pytest.raises(RuntimeError):
        embedder.of(text)
    with pytest.raises(
        InputError, match=rf"^text 2 has only {tokens} tokens, but the model needs at least 4: '{text}'$"
    ):
        embedder.encoder.embed(["ab", text])
    code, out, err = invoke(capsys, "embed", embedder.bundle, text)
    assert (code, out) == (2, "")
    assert "but the model needs at least 4" in one_line(err)


def test_tokens_command(embedder, capsys):
    code, out, _ = invoke(capsys, "tokens", embedder.bundle, "--json", "é \U0001f600\n")
    assert code == 0
    assert [(one["id"], one["token"], one["start"], one["end"]) for one in json.loads(out)] == [
        (0xE000, "U+E000", 0, 0), (0xE9, "é", 0, 1), (32, " ", 1, 2), (0x1F600, "\U0001f600", 2, 3),
        (10, "U+000A", 3, 4), (0xE001, "U+E001", 0, 0),
    ]  # fmt: skip


def test_vectors_command(embedder, capsys):
    found = {}
    for layer in (None, 0, 1, 2):
        options = [] if layer is None else ["--layer", str(layer)]
        found[layer] = invoke(capsys, "vectors", embedder.bundle, "--json", *options, "the cat")
    states = embedder.of("the cat").last_hidden_state[0].numpy()
    vectors = np.array([one["vector"] for one in json.loads(found[None][1])["tokens"]])
    assert_close(vectors, states)
    # The characters' two come before the deep encoder's, which has a vector for every four of them.
    assert [found[layer][0] for layer in (0, 1, 2)] == [0, 0, 1]
    assert "has no vector for each token" in one_line(found[2][2])


def test_verify_against_the_checkpoint(embedder, capsys):
    code, out, _ = invoke(capsys, "verify", embedder.bundle, "--against", embedder.checkpoint)
    assert code == 0
    assert "parity" in out


def test_tags(tagger):
    found = list(tag(tagger.encoder, TEXTS, aggregation="none"))
    for text, tags in zip(TEXTS, found, strict=True):
        scores = tagger.of(text).logits[0, 1:-1].softmax(-1)
        best = scores.argmax(-1).tolist()
        expected = [(NAMES[label], place, place + 1) for place, label in enumerate(best) if label]
        assert [(one.label, one.start, one.end) for one in tags] == expected
        assert [one.text for one in tags] == [text[start:end] for _, start, end in expected]
        wanted = [scores[start].max().item() for _, start, _ in expected]
        np.testing.assert_allclose([one.score for one in tags], wanted, rtol=0, atol=1e-4)
    assert len({one.label for tags in found for one in tags}) > 1


def test_tags_of_words(tagger):
    """The label of a word's first character is the word's; a space is a word of its own."""
    text = LONG[:150]
    best = tagger.of(text).logits[0, 1:-1].argmax(-1).tolist()
    expected, label = set(), ""
    for place, index in enumerate(best):
        if " " in text[max(0, place - 1) : place + 1] or place == 0:
            label = NAMES[index]
        if label != "O":
            expected.add(place)
    (tags,) = tag(tagger.encoder, [text], aggregation="first")
    assert {place for one in tags for place in range(one.start, one.end)} == expected
    assert 0 < len(expected) < len(text)


def test_tags_in_windows(tagger):
    (tags,) = tag(tagger.encoder, [LONG], aggregation="none", stride=20)
    starts = range(0, len(LONG), MOST - 2 - 20)
    windows = {start: tagger.of(LONG[start : start + MOST - 2]).logits[0, 1:-1].argmax(-1) for start in starts}
    # Each character from the window where it is farther from an end: 10 of the 20 shared ones from either.
    expected = []
    for place in range(len(LONG)):
        start = max([0, *(one for one in starts if one + 10 <= place)])
        label = NAMES[windows[start][place - start]]
        if label != "O":
            expected.append((label, place))
    assert [(one.label, one.start) for one in tags] == expected


def whole_words(text, first, last):
    """The runs of spaces, or of what is none, that two characters are in, and what is between."""
    before = re.search(r"(\s+|\S+)\Z", text[: first + 1])
    behind = re.match(r"\s+|\S+", text[last:])
    return before.start(), last + behind.end()


def test_answers(reader):
    context = "The lamp of Zoë was lit at nine; nobody saw who had done it, they said."
    pairs = [("Who?", context), ("When was the lamp lit?", context), ("何?", LONG[:120])]
    for (question, text), (best,) in zip(pairs, answer(reader.encoder, pairs), strict=True):
        found = reader.of(question, text)
        begin = len(question) + 2
        # The context and the first token are what an answer may point to.
        places = [0, *range(begin, begin + len(text))]
        start, end = (logits[0, places].softmax(-1)[1:] for logits in (found.start_logits, found.end_logits))
        scores = torch.outer(start, end).triu().tril(14).flatten()
        # Of the dozen likeliest spans, those that are the same words count together.
        together = {}
        for index in scores.argsort(descending=True)[:12].tolist():
            words = whole_words(text, *divmod(index, len(text)))
            key = text[slice(*words)].lower()
            together.setdefault(key, [words, 0.0])[1] += scores[index].item()
        words, score = max(together.values(), key=lambda pair: pair[1])
        assert (best.start, best.end, best.text) == (*words, text[slice(*words)])
        assert best.score == pytest.approx(score, rel=1e-3)


def test_classes_in_8_bits(classifier):
    info = open_bundle(classifier.bundle).graph("encoder")[1]
    assert info.quantization.scheme == "int8"
    # Two encoders of four products, the convolution between them, the pooler, and the table of token types. What comes
    # behind the deep encoder is not in the graph, since the answer is that encoder's.
    assert info.quantization.matrices == 2 * 4 + 1 + 1 + 1
    assert "Conv" not in info.operators
    found = list(classify(classifier.encoder, TEXTS))
    for text, scores in zip(TEXTS, found, strict=True):
        expected = classifier.of(text).logits[0].softmax(-1)
        actual = [dict(scores)[f"LABEL_{index}"] for index in range(3)]
        np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=0.03)
