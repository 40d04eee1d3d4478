"""`triform answer` and the function behind it.

Transformers 5 has no pipeline for question answering. Expected are the logits of its models and the post-processing of
version 4's pipeline, spelled out span by span; the code under test was compared with that pipeline itself as well.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from tests.checkpoints.encoders import bert_folder
from tests.helpers.commands import one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples import texts
from triform.runtime.encoder.answering import _words, answer
from triform.runtime.encoder.model import Encoder
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.opening import load_encoder
from triform.runtime.text.rows import TokenRow

# The model reads 448 tokens, but windows have 384, as models are trained for and transformers has it.
LONG, WINDOW = texts.read_text("evaluation")[:3500], 384
PAIRS = [
    ("Who was there?", "Its naïve owner, Zoë, lit 👩‍👩‍👧 the 🇫🇷 lamp at the cafe\u0301; the café\u0301's cat left."),
    ("Where did the boat go in the evening of that day?", LONG),
    ("何?", "日本語の灯台 and   the\tharbor\n\nof Århus, ﬁnally the the THE harbor"),
    ("Who?", LONG[500:1700]),
]


@dataclass(frozen=True)
class Reader:
    checkpoint: Path
    bundle: Path
    model: Encoder
    reference: Any
    tokenizer: Any

    def expected(self, pair, *, top_k=1, max_answer_length=15, stride=128, no_answer=False):
        """(start, end, text, score) of the best answers, and how many windows were read."""
        question, context = pair
        encoded = self.tokenizer(
            question, context, truncation="only_second", max_length=WINDOW, stride=stride,
            return_overflowing_tokens=True, return_tensors=None,
        )  # fmt: skip
        scores, spans, null = {}, {}, 1.0
        for window, ids in enumerate(encoded["input_ids"]):
            start, end = self.probabilities(encoded, window)
            null = min(null, start[0] * end[0])
            inside = [place for place, sequence in enumerate(encoded.sequence_ids(window)) if sequence == 1]
            found = [
                (start[first] * end[last], first, last)
                for place, first in enumerate(inside)
                for last in inside[place : place + max_answer_length]
            ]
            assert len(ids) <= WINDOW < 448
            for score, first, last in sorted(found, reverse=True)[: 2 * top_k + 10]:
                begin = encoded.word_to_chars(window, encoded.token_to_word(window, first), 1).start
                stop = encoded.word_to_chars(window, encoded.token_to_word(window, last), 1).end
                words = context[begin:stop].lower()
                spans.setdefault(words, (begin, stop, context[begin:stop]))
                scores[words] = scores.get(words, 0) + score
        answers = [(*span, scores[words]) for words, span in spans.items()]
        answers += [(0, 0, "", null)] if no_answer else []
        return sorted(answers, key=lambda one: -one[3])[:top_k], len(encoded["input_ids"])

    def probabilities(self, encoded, window):
        """Of beginning and of ending at each token; only [CLS] and the context can."""
        with torch.no_grad():
            found = self.reference(
                input_ids=torch.tensor([encoded["input_ids"][window]]),
                token_type_ids=torch.tensor([encoded["token_type_ids"][window]]),
            )
        mask = torch.tensor([place == 0 or one == 1 for place, one in enumerate(encoded.sequence_ids(window))])
        for logits in (found.start_logits[0], found.end_logits[0]):
            yield logits.masked_fill(~mask, float("-inf")).softmax(0).tolist()


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers")
    checkpoint = bert_folder(folder / "bert", "BertForQuestionAnswering", max_position_embeddings=448)
    export(str(checkpoint), folder / "bundle", ExportOptions(quantize="none"))
    reference = AutoModelForQuestionAnswering.from_pretrained(checkpoint).eval()
    model = load_encoder(folder / "bundle", threads=1)
    return Reader(checkpoint, folder / "bundle", model, reference, AutoTokenizer.from_pretrained(checkpoint))


OPTIONS = [
    {},
    {"top_k": 6, "no_answer": True},
    {"top_k": 3, "max_answer_length": 1},
    {"top_k": 20, "max_answer_length": 40, "stride": 9},
    {"top_k": 4, "stride": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_are_those_of_transformers(reader, options):
    """Ours in one batch of ragged windows, theirs one at a time."""
    found = reader.model.answer(PAIRS, **options)
    expected = [reader.expected(pair, **options) for pair in PAIRS]
    assert [[(one.start, one.end, one.text) for one in each] for each in found] == [
        [one[:3] for one in each] for each, _ in expected
    ]
    scores = [one.score for each in found for one in each]
    np.testing.assert_allclose(scores, [one[3] for each, _ in expected for one in each], rtol=0, atol=1e-4)
    assert expected[0][1] == 1
    assert expected[1][1] > 3
    for (_, context), each in zip(PAIRS, found, strict=True):
        assert all(one.text == context[one.start : one.end] for one in each)


def test_no_answer_is_a_candidate_among_others(reader):
    """With the score of the window that shows least of it."""
    for pair in PAIRS:
        found = next(answer(reader.model, [pair], top_k=100_000, no_answer=True))
        expected, _ = reader.expected(pair, top_k=100_000, no_answer=True)
        none = [one.score for one in found if not one.text]
        np.testing.assert_allclose(none, [one[3] for one in expected if not one[2]], rtol=1e-3)
        assert len(none) == 1
        assert all(one.text for one in next(answer(reader.model, [pair], top_k=100_000)))


def test_a_long_question_leaves_less_to_share(reader):
    """With no stride given: 128 tokens, or half of the room."""
    question = "who " * 160
    room = WINDOW - len(reader.tokenizer(question, add_special_tokens=False)["input_ids"]) - 3
    assert 0 < room < 250
    expected, _ = reader.expected((question, LONG[:1500]), stride=room // 2)
    found = next(answer(reader.model, [(question, LONG[:1500])]))
    assert [(one.start, one.end, one.text) for one in found] == [one[:3] for one in expected]


@pytest.mark.parametrize(
    ("pair", "options", "text"),
    [
        (("", "a lamp"), {}, "the question is empty"),
        (("Who?", " \n"), {}, "the context is empty"),
        (("who " * 400, "a lamp"), {}, "the question is too long: it leaves no room for a text in 384 tokens"),
        (("Who?", "a lamp"), {"stride": 384}, "`stride` must be less than"),
        (("Who?", "a lamp"), {"stride": -1}, "`stride` must be at least 0, not -1"),
        (("Who?", "a lamp"), {"stride": 1.5}, "`stride` must be a whole number, not 1.5"),
        (("Who?", "a lamp"), {"top_k": None}, "`top_k` must be a whole number, not None"),
        (("Who?", "a lamp"), {"max_answer_length": "3"}, "`max_answer_length` must be a whole number, not '3'"),
        (("Who?", "a lamp"), {"top_k": 0}, "`top_k` must be at least 1, not 0"),
        (("Who?", "a lamp"), {"max_answer_length": 0}, "`max_answer_length` must be at least 1, not 0"),
        (("Who?", "bad \udcff"), {}, "not valid Unicode"),
        (("bad \udcff", "a lamp"), {}, "not valid Unicode"),
    ],
)
def test_what_cannot_be_answered(reader, capfd, pair, options, text):
    with pytest.raises(InputError, match=text):
        next(answer(reader.model, [pair], **options))
    # Not even by tokenizers, which prints where it panics.
    assert capfd.readouterr().err == ""


def test_another_task(call, reader, float_bundle):
    with pytest.raises(UnsupportedError, match=r"use `Encoder\.answer`"):
        reader.model.require("tag", "token-classification")
    code, out, err = call("answer", float_bundle, "Who?", "--context", "a lamp")
    assert (code, out) == (1, "")
    assert "use `triform generate`" in one_line(err)
    code, out, err = call("tag", reader.bundle, "a lamp")
    assert (code, out) == (1, "")
    assert "use `triform answer`" in one_line(err)


def test_prints_a_line_an_answer(call, reader, tmp_path, monkeypatch):
    question, context = PAIRS[0]
    found = next(answer(reader.model, [PAIRS[0]], top_k=3, no_answer=True))
    lines = "".join(f"{one.score:.4f}\t{one.start}-{one.end}\t{one.text or '(no answer)'}\n" for one in found)
    options = ("--top-k", 3, "--no-answer")
    assert call("answer", reader.bundle, question, "--context", context, *options) == (0, lines, "")
    file = tmp_path / "story.txt"
    file.write_text(context, encoding="utf-8")
    assert call("answer", reader.bundle, question, "--file", file, *options) == (0, lines, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO(context))
    assert call("answer", reader.bundle, question, *options) == (0, lines, "")
    _, out, _ = call("answer", reader.bundle, question, "--context", context, *options, "--json")
    listed = json.loads(out)
    fields = [{**dataclasses.asdict(one), "score": 0} for one in found]
    # Of a page only.
    assert [each.pop("words") for each in fields] == [()] * len(found)
    assert [{**one, "score": 0} for one in listed] == fields
    np.testing.assert_allclose([one["score"] for one in listed], [one.score for one in found], rtol=1e-5)


def test_no_answer_is_shown_as_such(call, reader, monkeypatch):
    """A model that points at its first token."""

    def feed(arrays, outputs):
        logits = np.zeros(arrays["input_ids"].shape, np.float32)
        logits[:, 0] = 9
        return [logits for _ in outputs]

    monkeypatch.setattr("triform.runtime.graphs.encoder_batch.EncoderStep.feed", lambda _, *given: feed(*given))
    code, out, err = call("answer", reader.bundle, "Who?", "--context", "x", "--no-answer")
    expected = (np.exp(9) / (np.exp(9) + 1)) ** 2
    assert (code, out, err) == (0, f"{expected:.4f}\t0-0\t(no answer)\n", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["Who?", "--file", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["Who?", "--file", "nowhere.txt", "--context", "x"], "not both"),
        ([], "there is no question"),
    ],
)
def test_usage(call, reader, arguments, text):
    code, out, err = call("answer", reader.bundle, *arguments)
    assert (code, out) == (2, "")
    assert text in one_line(err)


def test_a_model_that_computes_nonsense(call, reader, tmp_path):
    damaged = shutil.copytree(reader.bundle, tmp_path / "damaged")
    bias = reader.reference.qa_outputs.bias.detach().numpy()
    overwritten = 0
    for file in damaged.glob("*.onnx*"):
        content = file.read_bytes()
        overwritten += content.count(bias.tobytes())
        file.write_bytes(content.replace(bias.tobytes(), np.full_like(bias, np.nan).tobytes()))
    assert overwritten == 1
    code, out, err = call("answer", damaged, "Who?", "--context", "a lamp", "--verify", "never")
    assert (code, out) == (1, "")
    assert "not numbers" in one_line(err)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((3, 3), (2, 4)), ((2, 4), (2, 4)), ((4, 5), (2, 5)), ((5, 5), (5, 5)), ((5, 6), (5, 7)), ((7, 7), (6, 7)),
        # The question's last word has the same number as the context's first, and is not part of it.
        ((1, 1), (1, 1)), ((0, 3), (0, 3)), ((3, 0), (3, 0)), ((0, 0), (0, 0)),
    ],
)  # fmt: skip
def test_spans_grow_to_whole_words(span, expected):
    """Also in a row that ends in the middle of a word, without a special token behind it."""
    words: list[int | None] = [None, 0, 0, 0, 0, 1, 2, 2]
    row = TokenRow([0] * 8, [0] * 8, words=words, sequence_ids=[None, 0, 1, 1, 1, 1, 1, 1])
    assert _words(row, *span) == expected
