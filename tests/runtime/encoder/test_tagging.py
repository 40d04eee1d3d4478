"""`triform tag` and the function behind it, against transformers' token-classification pipeline."""

from __future__ import annotations

import io
import json
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForTokenClassification,
    pipeline,
)

from tests.checkpoints.decoders import byte_level_tokenizer
from tests.checkpoints.encoders import BERT, bert_folder
from tests.helpers.commands import one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples import texts
from triform.runtime.encoder.model import Encoder
from triform.runtime.encoder.tagging import tag
from triform.runtime.errors import InputError
from triform.runtime.opening import load_encoder

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
PARTS = ("NOUN", "VERB", "ADJ-fem", "ADJ-masc")
LONG = texts.read_text("evaluation")[:1200]
TEXTS = [
    "Ada Lovelace was born in London.",
    "-",
    "Its naïve owner, Zoë, lit 👩‍👩‍👧 the 🇫🇷 lamp at the cafe\u0301; the café\u0301's cat [SEP] left.",
    "  日本語の灯台 and   the\tharbor\n\nof Århus, ﬁnally   ",
    "tugboat",
    " ".join(texts.passages("evaluation", 1))[:150],
]


def labels(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def byte_level_folder(folder):
    """A tokenizer that marks no tokens inside a word, and splits emoji into bytes; labels without O, B- or I-."""
    backend = byte_level_tokenizer()
    backend.post_processor = processors.RobertaProcessing(
        sep=("<|end|>", 2), cls_token=("<s>", 1), add_prefix_space=False
    )
    special = {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "<|end|>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=96, **special).save_pretrained(folder)
    torch.manual_seed(0)
    settings = {**BERT, "vocab_size": 400, "max_position_embeddings": 97, "type_vocab_size": 1, **labels(PARTS)}
    model = RobertaForTokenClassification(RobertaConfig(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Tagger:
    checkpoint: Path
    bundle: Path
    model: Encoder
    pipeline: Any


@pytest.fixture(scope="session")
def taggers(tmp_path_factory):
    """By the kind of tokenizer."""
    folder = tmp_path_factory.mktemp("taggers")
    checkpoints = {
        "word pieces": bert_folder(folder / "bert", "BertForTokenClassification", **labels(NAMES)),
        "bytes": byte_level_folder(folder / "roberta"),
    }
    made = {}
    for kind, checkpoint in checkpoints.items():
        bundle = folder / f"{kind} bundle"
        export(str(checkpoint), bundle, ExportOptions(quantize="none"))
        reference = pipeline("token-classification", model=str(checkpoint))
        made[kind] = Tagger(checkpoint, bundle, load_encoder(bundle, threads=1), reference)
    return made


@pytest.fixture(scope="session")
def tagger(taggers):
    return taggers["word pieces"]


def by_transformers(found, inputs, **options):
    with warnings.catch_warnings():
        # It warns where a tokenizer marks no words.
        warnings.simplefilter("ignore")
        return [found(one, **options) for one in inputs]


def assert_same(found, expected):
    assert [[(one.label, one.start, one.end) for one in each] for each in found] == [
        [(one.get("entity_group", one.get("entity")), one["start"], one["end"]) for one in each] for each in expected
    ]
    scores = [one.score for each in found for one in each]
    np.testing.assert_allclose(scores, [one["score"] for each in expected for one in each], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["word pieces", "bytes"])
@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_tags_are_those_of_transformers(taggers, kind, aggregation):
    """Ours in one batch of ragged rows, theirs one at a time."""
    tagger = taggers[kind]
    found = tagger.model.tag(TEXTS, aggregation=aggregation)
    assert_same(found, by_transformers(tagger.pipeline, TEXTS, aggregation_strategy=aggregation))
    assert len({one.label for each in found for one in each}) > 1
    assert all(one.text == text[one.start : one.end] for text, each in zip(TEXTS, found, strict=True) for one in each)


@pytest.mark.parametrize("kind", ["word pieces", "bytes"])
@pytest.mark.parametrize(("aggregation", "stride"), [("simple", 0), ("simple", 30), ("first", 7), ("max", 50)])
def test_windows_are_those_of_transformers(taggers, kind, aggregation, stride):
    model = taggers[kind].model
    inputs = [TEXTS[0], LONG, "", LONG[300:600]]
    assert len(model.reader().read_windows(LONG, stride=stride)) > 4
    found = list(tag(model, inputs, aggregation=aggregation, stride=stride))
    assert_same(found, by_transformers(taggers[kind].pipeline, inputs, aggregation_strategy=aggregation, stride=stride))
    assert model.reader().truncated == 0


@pytest.mark.parametrize("stride", [12, 13])
def test_each_token_of_a_long_text_once(taggers, stride):
    """Transformers refuses this. Expected: of the windows a token is in, the one where it is farther from an end.

    In the middle of an odd stride it is as far from both; there the later window counts.
    """
    reference = taggers["bytes"].pipeline
    tokenizer, model = reference.tokenizer, reference.model
    whole = tokenizer(LONG, add_special_tokens=False, return_offsets_mapping=True, truncation=False)["offset_mapping"]
    windows = tokenizer(LONG, truncation=True, stride=stride, return_overflowing_tokens=True)["input_ids"]
    best = {}
    for number, ids in enumerate(windows):
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0, 1:-1].softmax(-1)
        for place, row in enumerate(scores):
            token = number * (len(windows[0]) - 2 - stride) + place
            margin = min(place, len(scores) - 1 - place)
            if token not in best or margin >= best[token][0]:
                best[token] = (margin, row)
    expected = [
        {"entity": PARTS[int(best[token][1].argmax())], "score": float(best[token][1].max()), "start": a, "end": b}
        for token, (a, b) in enumerate(whole)
    ]
    found = list(tag(taggers["bytes"].model, [LONG], aggregation="none", stride=stride))
    assert len(windows) > 4
    assert_same(found, [expected])


def test_spans_point_at_the_words(taggers):
    """In characters, where a character is several bytes, an emoji several characters, and words have no spaces."""
    text = "👩‍👩‍👧 zoë 🇫🇷 naïve Zürich 日本 é\u0301 x"
    found = next(tag(taggers["bytes"].model, [text], aggregation="none"))
    for character in ("👩", "ë", "🇫", "ï", "ü", "日", "\u0301"):
        # Each of its bytes is a token, or part of one, that stands for all of the character.
        assert any(character in one.text for one in found), character
    assert all(one.text == text[one.start : one.end] for one in found)
    assert "".join(text[start:end] for start, end in sorted({(one.start, one.end) for one in found})) == text.replace(
        " ", ""
    )


def test_the_default_reads_all_of_a_long_text(tagger):
    model, room = tagger.model, 96 - 2
    assert list(tag(model, [LONG])) == list(tag(model, [LONG], stride=room // 4))
    assert next(tag(model, [LONG]))[-1].end > len(LONG) - 100


@pytest.mark.parametrize(
    ("options", "text"),
    [({"aggregation": "last"}, "none, simple, first, average, max"), ({"stride": 94}, "from 0 to 93, not 94"),
     ({"stride": -1}, "from 0 to 93, not -1")],
)  # fmt: skip
def test_options_out_of_range(tagger, options, text):
    with pytest.raises(InputError, match=text):
        tag(tagger.model, ["a"], **options)


def test_prints_a_line_a_span(call, tagger):
    expected = next(tag(tagger.model, [TEXTS[2]], aggregation="first"))
    lines = [f"{one.label}\t{one.score:.4f}\t{one.start}-{one.end}\t{one.text}\n" for one in expected]
    code, out, err = call("tag", tagger.bundle, TEXTS[2], "--aggregation", "first")
    assert (code, out, err) == (0, "".join(lines), "")
    _, out, _ = call("tag", tagger.bundle, "", TEXTS[2], "--aggregation", "first")
    assert out == "".join(f"2\t{line}" for line in lines)


def test_jsonl_in_and_out(call, tagger, tmp_path, monkeypatch):
    values = [{"id": number, "body": text} for number, text in enumerate(TEXTS)]
    lines = [json.dumps(value) for value in values]
    file = tmp_path / "letters.jsonl"
    file.write_text("\n".join([*lines[:2], "{damaged", *lines[2:]]))
    where = f"the first is line 3 of {file}"
    code, out, err = call("tag", tagger.bundle, "--file", file, "--field", "body", "--json", "--skip-errors")
    assert (code, err) == (0, f"note: skipped 1 input that could not be used; {where}: it is not JSON\n")
    found = [json.loads(line) for line in out.splitlines()]
    assert [{"id": one["id"], "body": one["body"]} for one in found] == values
    expected = list(tag(tagger.model, TEXTS))
    assert [[one["text"] for one in each["tags"]] for each in found] == [
        [one.text for one in each] for each in expected
    ]
    assert set(found[0]["tags"][0]) == {"label", "score", "start", "end", "text"}
    code, out, err = call("tag", tagger.bundle, "--file", file, "--field", "body")
    # What comes before the damaged line is finished first.
    assert code == 2
    assert {line.split("\t")[0] for line in out.splitlines()} == {"1", "2"}
    assert "line 3" in one_line(err)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Ada Lovelace was born in London.\n"))
    assert json.loads(call("tag", tagger.bundle, "--json")[1])["tags"] == found[0]["tags"]


def test_text_that_is_none(call, tagger):
    code, out, err = call("tag", tagger.bundle, "fine", "bad \udcff")
    assert (code, out) == (2, "")
    assert "text 2 is not valid Unicode" in one_line(err)


def test_a_model_that_computes_nonsense(call, tagger, tmp_path):
    """The bias of the classifier overwritten in place, so that sizes stay."""
    damaged = shutil.copytree(tagger.bundle, tmp_path / "damaged")
    bias = tagger.pipeline.model.classifier.bias.detach().numpy()
    overwritten = 0
    for file in damaged.glob("*.onnx*"):
        content = file.read_bytes()
        overwritten += content.count(bias.tobytes())
        file.write_bytes(content.replace(bias.tobytes(), np.full_like(bias, np.nan).tobytes()))
    assert overwritten == 1
    code, out, err = call("tag", damaged, "Ada Lovelace", "--verify", "never")
    assert (code, out) == (1, "")
    assert "not numbers" in one_line(err)
