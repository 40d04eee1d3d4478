"""The end at which long texts are cut, and what a question answerer reads first, as in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CanineTokenizer,
    pipeline,
)

from tests.checkpoints.encoders import bert_folder, word_piece_tokenizer
from triform.export.describe.encoder import label_names, reads_context_first
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples import texts
from triform.export.tokenization.code_points import code_points_info
from triform.runtime.bundle.text_info import SourceTextInfo
from triform.runtime.encoder_decoder.source_text import SourceText
from triform.runtime.errors import ExportError
from triform.runtime.opening import load_encoder
from triform.runtime.text.code_points import CodePointTokenizer
from triform.runtime.text.rows import RowReader

LONG = texts.read_text("evaluation")[:1200]


def exported(folder: Path, architecture: str, **settings: str) -> Path:
    """A checkpoint whose tokenizer_config.json has `settings`, and beside it its bundle."""
    source = bert_folder(folder / "bert", architecture)
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    export(str(source), folder / "bundle", ExportOptions(quantize="none"))
    return source


def test_the_end_of_a_long_text_is_kept(tmp_path):
    source = exported(tmp_path, "BertForSequenceClassification", truncation_side="left")
    model = load_encoder(tmp_path / "bundle", threads=1)
    reference = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(source),
        tokenizer=AutoTokenizer.from_pretrained(source),
        top_k=None,
    )
    pairs = [("short", LONG), (LONG, "short"), (LONG[:700], LONG[700:])]
    found = [dict(each) for each in model.classify([LONG, *pairs])]
    expected = [
        {one["label"]: one["score"] for one in reference(given, truncation=True)}
        for given in ({"text": LONG}, *({"text": first, "text_pair": second} for first, second in pairs))
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    # The beginning, which would be kept without the setting, has other scores.
    assert dict(next(iter(model.classify([LONG[:300]])))) != pytest.approx(expected[0], abs=1e-4)
    assert (model.manifest.schema_version, model.manifest.tokenizer.truncation_side) == (8, "left")


def test_a_tokenizer_that_pads_on_the_left_has_the_text_before_the_question(tmp_path):
    """As in transformers' example of question answering, run_qa.py."""
    source = exported(tmp_path, "BertForQuestionAnswering", padding_side="left")
    model = load_encoder(tmp_path / "bundle", threads=1)
    tokenizer, question, stride = AutoTokenizer.from_pretrained(source), "Where did the boat go?", 20
    found = next(iter(model.answer([(question, LONG)], top_k=4, stride=stride)))
    encoded = tokenizer(
        LONG, question, truncation="only_first", max_length=96, stride=stride, return_overflowing_tokens=True
    )
    scores: dict[str, float] = {}
    assert len(encoded["input_ids"]) > 2
    for window, ids in enumerate(encoded["input_ids"]):
        types = torch.tensor([encoded["token_type_ids"][window]])
        with torch.no_grad():
            given = AutoModelForQuestionAnswering.from_pretrained(source).eval()(torch.tensor([ids]), None, types)
        places = [place for place, one in enumerate(encoded.sequence_ids(window)) if one == 0]
        mask = torch.ones(len(ids), dtype=torch.bool)
        mask[[0, *places]] = False
        start, end = (
            logits[0].masked_fill(mask, float("-inf")).softmax(0).tolist()
            for logits in (given.start_logits, given.end_logits)
        )
        spans = [
            (start[first] * end[last], first, last)
            for index, first in enumerate(places)
            for last in places[index : index + 15]
        ]
        for score, first, last in sorted(spans, reverse=True)[:18]:
            begin = encoded.word_to_chars(window, encoded.token_to_word(window, first), 0).start
            stop = encoded.word_to_chars(window, encoded.token_to_word(window, last), 0).end
            words = LONG[begin:stop].lower()
            scores[words] = scores.get(words, 0) + score
    expected = sorted(scores.items(), key=lambda item: -item[1])[:4]
    assert [answer.text.lower() for answer in found] == [words for words, _ in expected]
    np.testing.assert_allclose([answer.score for answer in found], [score for _, score in expected], atol=1e-5)
    assert [LONG[answer.start : answer.end] for answer in found] == [answer.text for answer in found]
    assert (model.manifest.schema_version, model.manifest.encoder.context_first) == (8, True)


@pytest.mark.parametrize(
    ("side", "task", "first"),
    [("left", "question-answering", True), ("right", "question-answering", False), ("left", "fill-mask", False)],
)
def test_only_question_answering_has_an_order(side, task, first):
    tokenizer = CanineTokenizer(padding_side=side)
    assert reads_context_first(tokenizer, task) is first


@pytest.mark.parametrize("pair", [("abcdefghijklmn", None), ("abcdefghijklmn", "opq"), ("abc", "defghijklmnopqrs")])
@pytest.mark.parametrize("side", ["left", "right"])
def test_characters_are_cut_at_the_same_end(pair, side):
    theirs = CanineTokenizer(truncation_side=side)
    expected = theirs(*pair, truncation=True, max_length=12)
    info = code_points_info(theirs)
    assert info is not None
    reader = RowReader(CodePointTokenizer(info), 12, 2**21, truncation_side=side)
    (row,) = reader.read([pair[0] if pair[1] is None else pair])
    assert (row.ids, row.type_ids) == (expected["input_ids"], expected["token_type_ids"])
    assert row.truncated


@pytest.mark.parametrize("side", ["left", "right"])
def test_sources_of_encoder_decoders_are_cut_there_too(tmp_path, side):
    word_piece_tokenizer().save(str(tmp_path / "tokenizer.json"))
    expected = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected.enable_truncation(10, direction=side)
    source = SourceText(tmp_path, SourceTextInfo(), 10, 300, truncation_side=side)
    assert source.read([LONG]) == [expected.encode(LONG).ids]


def test_labels_that_are_counted_from_1_are_refused(tmp_path):
    """Transformers fails at the first text that gets the label 0."""
    config = AutoModelForSequenceClassification.from_pretrained(
        bert_folder(tmp_path, "BertForSequenceClassification", num_labels=3)
    ).config
    assert label_names(config) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    config.id2label = {1: "a", 2: "b", 3: "c"}
    with pytest.raises(ExportError, match="names a label 3, but there are 3, counted from 0"):
        label_names(config)
