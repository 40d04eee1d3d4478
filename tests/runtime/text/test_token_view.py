"""`triform tokens` and `triform vectors`, against transformers' tokenizers and models."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.checkpoints.encoders import bert_folder
from tests.helpers.commands import one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.arithmetic import cosines
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.encoder.vectors.token_vectors import token_vectors
from triform.runtime.errors import InputError
from triform.runtime.opening import load_encoder
from triform.runtime.text.token_view import split_text

TEXTS = [
    "The keeper lit the lamp.",
    "",
    "Its naïve owner, Zoë, lit 👩‍👩‍👧 the 🇫🇷 lamp at the cafe\u0301; the café\u0301's cat [SEP] left.",
    "  日本語の灯台 and   the\tharbor\n\nof Århus, ﬁnally   ",
]
BANKS = ["We sat on the river bank.", "She robbed the Bank, and left.", "The bank's clerk saw an embankment."]


@dataclass(frozen=True)
class Layers:
    """A model that gives the outputs of all its layers."""

    checkpoint: Path
    bundle: Path
    reference: Any
    tokenizer: Any

    def expected(self, text):
        """(layers, tokens, width), by transformers."""
        with torch.no_grad():
            found = self.reference(**self.tokenizer(text, truncation=True, return_tensors="pt"))
        np.testing.assert_array_equal(found.last_hidden_state, found.hidden_states[-1])
        return torch.cat(found.hidden_states).numpy()


@pytest.fixture(scope="session")
def layers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    checkpoint = bert_folder(folder / "bert", num_hidden_layers=3)
    export(str(checkpoint), folder / "bundle", ExportOptions(quantize="none", hidden_states=True))
    reference = AutoModel.from_pretrained(checkpoint, output_hidden_states=True).eval()
    return Layers(checkpoint, folder / "bundle", reference, AutoTokenizer.from_pretrained(checkpoint))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("form", ["encoder", "decoder"])
def test_tokens_are_those_of_transformers(layers, checkpoint, float_bundle, form, text):
    source, bundle = (layers.checkpoint, layers.bundle) if form == "encoder" else (checkpoint, float_bundle)
    tokenizer = AutoTokenizer.from_pretrained(source)
    expected = tokenizer(text, return_offsets_mapping=True)
    found = split_text(open_bundle(bundle), text)
    assert [one.id for one in found] == expected["input_ids"]
    assert [one.token for one in found] == tokenizer.convert_ids_to_tokens(expected["input_ids"])
    assert [(one.start, one.end) for one in found] == expected["offset_mapping"]
    assert [one.index for one in found] == list(range(len(found)))
    assert [one.text for one in found] == [text[start:end] for start, end in expected["offset_mapping"]]


def test_offsets_point_at_the_words(layers):
    """Written out by hand: words that the small vocabulary does not know are one token each."""
    text = "👩‍👩‍👧 ☃ 日本 🇫🇷 ①"
    found = split_text(open_bundle(layers.bundle), text)
    assert [one.text for one in found] == ["", "👩‍👩‍👧", "☃", "日", "本", "🇫🇷", "①", ""]


def test_prints_a_line_a_token(call, layers, monkeypatch):
    tokens = split_text(open_bundle(layers.bundle), "lamp\ncat")
    lines = "".join(f"{one.index}\t{one.id}\t{one.token}\t{one.start}-{one.end}\t{one.text}\n" for one in tokens)
    assert call("tokens", layers.bundle, "lamp\ncat") == (0, lines, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO("lamp\ncat"))
    assert call("tokens", layers.bundle) == (0, lines, "")
    _, out, _ = call("tokens", layers.bundle, "lamp\ncat", "--json")
    assert json.loads(out) == [dataclasses.asdict(one) for one in tokens]


def test_more_tokens_than_the_model_reads(call, layers):
    code, out, err = call("tokens", layers.bundle, "the " * 200)
    assert (code, err) == (0, "note: 202 tokens; the model reads at most 96\n")
    assert out.count("\n") == 202


def test_tokens_open_no_model(layers, tmp_path):
    """Not even a damaged one, nor what would run it."""
    bundle = shutil.copytree(layers.bundle, tmp_path / "bundle")
    for file in bundle.glob("*.onnx*"):
        file.write_bytes(bytes(file.stat().st_size))
    code = "import sys; from triform.cli.main import run; run(sys.argv[1:]); print('onnxruntime' in sys.modules)"
    command = [sys.executable, "-c", code, "tokens", str(bundle), "lamp"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert done.stdout.count("\n") > 3


def test_tokens_of_text_that_is_none(call, layers):
    code, out, err = call("tokens", layers.bundle, "bad \udcff")
    assert (code, out) == (2, "")
    assert "not valid Unicode" in one_line(err)


@pytest.mark.parametrize("text", TEXTS)
def test_vectors_are_those_of_transformers(layers, text):
    model = load_encoder(layers.bundle, threads=1)
    expected = layers.expected(text)
    for layer, wanted in [*enumerate(expected), (None, expected[-1])]:
        (found,) = model.token_vectors([text], layer=layer)
        assert found.vectors.shape == wanted.shape
        np.testing.assert_allclose(found.vectors, wanted, rtol=0, atol=1e-4)
        assert found.tokens == split_text(open_bundle(layers.bundle), text)


def word_vector(layers, text, start, end):
    """Of the tokens between two characters, by transformers: their mean in the last layer."""
    offsets = layers.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    inside = [index for index, (first, last) in enumerate(offsets) if start <= first < last <= end]
    return torch.from_numpy(layers.expected(text)[-1][inside].mean(0))


def test_a_word_in_different_contexts(call, layers):
    """Whatever its case, as a word of its own, and whole although it is several tokens."""
    places = [(20, 24), (15, 19), (4, 8)]
    assert [text[start:end].lower() for text, (start, end) in zip(BANKS, places, strict=True)] == ["bank"] * 3
    words = [word_vector(layers, text, *place) for text, place in zip(BANKS, places, strict=True)]
    assert len(layers.tokenizer("bank", add_special_tokens=False)["input_ids"]) > 1
    expected = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in itertools.combinations(words, 2)]
    code, out, err = call("vectors", layers.bundle, *BANKS, "--word", "bank", "--json")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    np.testing.assert_allclose([one["cosine"] for one in found], expected, rtol=0, atol=1e-4)
    assert [tuple(one["texts"]) for one in found] == list(itertools.combinations(BANKS, 2))
    _, out, _ = call("vectors", layers.bundle, *BANKS[:2], "--word", "bank")
    assert out == f"{found[0]['cosine']:.4f}\t{BANKS[0]}\t{BANKS[1]}\n"
    # Without context the same word is the same, wherever it stands as far as that.
    _, out, _ = call("vectors", layers.bundle, "A bank.", "A bank!", "--word", "bank", "--layer", 0)
    assert out.startswith("1.0000\t")


def test_the_first_occurrence_as_a_word(layers):
    model = load_encoder(layers.bundle, threads=1)
    found = token_vectors(model, "An embankment (bank) and c++ code")
    whole = word_vector(layers, found.text, 15, 19)
    np.testing.assert_allclose(found.of_word("BANK"), whole, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.of_word("c++"), word_vector(layers, found.text, 25, 28), rtol=0, atol=1e-4)
    assert cosines(found.of_word("code"), found.of_word("code")) == pytest.approx(1)
    for word in ("emb", "river", ""):
        with pytest.raises(InputError, match="is not in"):
            found.of_word(word)
    with pytest.raises(InputError, match="does not read as far"):
        token_vectors(model, "the " * 100 + "bank").of_word("bank")


def test_prints_writes_and_lists_vectors(call, layers, tmp_path):
    text = TEXTS[0]
    expected = layers.expected(text)
    code, out, err = call("vectors", layers.bundle, text, "--json", "--layer", 1)
    found = json.loads(out)
    assert (code, err, found["text"]) == (0, "", text)
    np.testing.assert_allclose([one["vector"] for one in found["tokens"]], expected[1], rtol=0, atol=1e-4)
    assert set(found["tokens"][0]) == {"index", "id", "token", "start", "end", "text", "vector"}
    file = tmp_path / "vectors.of.tokens"
    code, out, err = call("vectors", layers.bundle, text, "--output", file)
    tokens, width = expected[-1].shape
    assert (code, out, err) == (0, "", f"wrote {tokens} vectors of {width} numbers to {file}\n")
    np.testing.assert_allclose(np.load(file), expected[-1], rtol=0, atol=1e-4)
    _, out, _ = call("vectors", layers.bundle, text)
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[1] for row in rows] == layers.tokenizer.convert_ids_to_tokens(layers.tokenizer(text)["input_ids"])
    lengths = np.linalg.norm(expected[-1], axis=1)
    np.testing.assert_allclose([float(row[2]) for row in rows], lengths, rtol=0, atol=2e-4)


def test_a_long_text_is_cut_and_says_so(call, layers):
    code, out, err = call("vectors", layers.bundle, "the " * 200)
    assert (code, out.count("\n")) == (0, 96)
    assert err.startswith("note: cut 1 text longer than 96 tokens")
    code, out, err = call("vectors", layers.bundle, "the " * 200, "--strict")
    assert (code, out) == (2, "")
    assert "longer than the model's 96 tokens" in one_line(err)


def test_bundles_that_give_no_vectors(call, sentence_bundle, float_bundle):
    code, out, err = call("vectors", sentence_bundle, "lamp", "--layer", 1)
    assert (code, out) == (1, "")
    assert "export the model with --hidden-states" in one_line(err)
    assert call("vectors", sentence_bundle, "lamp")[0] == 0
    code, _, err = call("vectors", float_bundle, "lamp")
    assert code == 1
    assert "use `triform generate`" in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lamp", "--layer", 4], "--layer must be from 0 to 3, not 4"),
        (["lamp", "--layer", -1], "--layer must be from 0 to 3, not -1"),
        (["lamp", "--word", "lamp"], "give two or more"),
        (["a lamp", "a cat", "--word", "lamp"], "the word 'lamp' is not in 'a cat'"),
        (["a", "b", "--output", "x.npy"], "--output takes one text and excludes --json"),
        (["a", "--json", "--output", "x.npy"], "--output takes one text and excludes --json"),
        (["a", "--output", "nowhere/x.npy"], "nowhere/x.npy cannot be written"),
    ],
)
def test_usage(call, layers, arguments, text):
    code, out, err = call("vectors", layers.bundle, *arguments)
    assert (code, out) == (2, "")
    assert text in one_line(err)


def test_nothing_is_written_into_the_bundle(call, layers):
    code, _, err = call("vectors", layers.bundle, "lamp", "--output", layers.bundle / "manifest.json")
    assert code == 2
    assert "it is in the folder of the bundle" in one_line(err)


def test_a_model_that_computes_nonsense(call, layers, tmp_path):
    damaged = shutil.copytree(layers.bundle, tmp_path / "damaged")
    bias = layers.reference.encoder.layer[-1].output.LayerNorm.bias.detach().numpy()
    overwritten = 0
    for file in damaged.glob("*.onnx*"):
        content = file.read_bytes()
        overwritten += content.count(bias.tobytes())
        file.write_bytes(content.replace(bias.tobytes(), np.full_like(bias, np.nan).tobytes()))
    assert overwritten == 1
    code, out, err = call("vectors", damaged, "lamp", "--verify", "never")
    assert (code, out) == (1, "")
    assert "not numbers" in one_line(err)
