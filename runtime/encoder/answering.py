"""Extractive question answering: finds the spans of a text that answer a question.

The scores are those of QuestionAnsweringPipeline in version 4 of transformers. If a text has fewer spans than `top_k`,
the pipeline adds impossible ones with a score of 0, such as an end before a start; they are left out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array, softmax
from triform.runtime.encoder.inputs import check_whole
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.encoder.windows import run_windows
from triform.runtime.errors import InputError, option
from triform.runtime.text.pages import Page, Text, text_of
from triform.runtime.text.rows import Pair, RowReader, TokenRow

# Tokens in a window, including the question, and tokens that neighbors share: transformers' defaults, also in training.
_WINDOW, _STRIDE = 384, 128


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        text: the context from `start` to `end`, in whole words; empty for "there is no answer in the context".
        score: the probability that the answer begins at `start` times the probability that it ends at `end`, among the
            tokens of a window; summed over all spans of the same words, so that it may exceed 1.
        start: index of the first character in the context.
        end: index after the last character.
        words: of a page, the indices of the answer's words, from 0; empty for a text.
    """

    text: str
    score: float
    start: int
    end: int
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Limits:
    """The most answers to a question, and the most tokens of an answer."""

    top_k: int
    longest: int


def answer(
    encoder: OpenEncoder,
    questions: Iterable[Pair],
    *,
    top_k: int = 1,
    max_answer_length: int = 15,
    stride: int | None = None,
    no_answer: bool = False,
) -> Iterator[list[Answer]]:
    """Answer questions from texts of any length.

    Args:
        encoder: a question-answering bundle.
        questions: any number of (question, context); the context is a page for a bundle that reads boxes.
        top_k: the most answers to each question.
        max_answer_length: the most tokens of an answer.
        stride: tokens of the context that neighboring windows share; when None, 128 or half of the window without the
            question, whichever is less.
        no_answer: whether "there is no answer" counts as an answer. Its score is the probability that the answer begins
            and ends at the first token, in the window where that is least likely.

    Returns:
        for each question its answers, the best first.

    Raises:
        UnsupportedError: the bundle is for another task.
        InputError: a limit is out of range; while iterating, a question or context is empty or not valid Unicode, or a
            question or the stride leaves no room for a context.
        BundleError: while iterating, the logits hold NaN or an infinity.
    """
    encoder.require("answer", "question-answering")
    check_whole("top_k", top_k, 1)
    check_whole("max_answer_length", max_answer_length, 1)
    if stride is not None:
        check_whole("stride", stride, 0)
    return _answers(encoder, questions, _Limits(top_k, max_answer_length), stride, no_answer)


def _answers(
    encoder: OpenEncoder, questions: Iterable[Pair], limits: _Limits, stride: int | None, no_answer: bool
) -> Iterator[list[Answer]]:
    reader = encoder.reader()
    small = reader.shorter(_WINDOW)
    info = encoder.manifest.tokenizer
    first = reader.tokenizer.token_to_id((info.special if info else {}).get("cls_token", ""))
    place = 0 if encoder.info.context_first else 1
    inputs = ((pair[1], _windows(small, pair, stride, place)) for pair in questions)
    for context, rows, results in run_windows(encoder.step, inputs, ["start_logits", "end_logits"]):
        by_text: dict[str, Answer] = {}
        nulls: list[float] = []
        for row, (start, end) in zip(rows, results, strict=True):
            window = _Window(row, start, end, first, place)
            nulls.append(window.no_answer())
            _collect(by_text, window.best(text_of(context), limits))
        answers = [_in_words(context, answer) for answer in by_text.values()]
        if no_answer:
            answers.append(Answer("", min(nulls, default=0.0), 0, 0))
        yield sorted(answers, key=lambda answer: -answer.score)[: limits.top_k]


def _in_words(context: Text, answer: Answer) -> Answer:
    if not isinstance(context, Page):
        return answer
    return replace(answer, words=context.words_between(answer.start, answer.end))


def _windows(reader: RowReader, pair: Pair, stride: int | None, place: int) -> list[TokenRow]:
    """The rows of a question and its context, which is the text `place` of each."""
    question, context = pair
    for name, text in (("question", question), ("context", context)):
        if not text_of(text).strip():
            raise InputError(f"the {name} is empty")
    room = reader.room(question)
    if room < 1:
        raise InputError(f"the question is too long: it leaves no room for a text in {reader.max_length} tokens")
    if stride is not None and stride >= room:
        raise InputError(
            f"{option('stride')} must be less than the {room} tokens that the question leaves, not {stride}"
        )
    shared = min(_STRIDE, room // 2) if stride is None else stride
    if place == 0:
        return reader.read_windows((text_of(context), question), stride=shared, split_first=True)
    return reader.read_windows(pair, stride=shared)


def _collect(by_text: dict[str, Answer], answers: Iterable[Answer]) -> None:
    """Add answers to those of earlier windows; the scores of equal texts are summed."""
    for new in answers:
        key = new.text.lower()
        known = by_text.get(key)
        by_text[key] = new if known is None else replace(known, score=known.score + new.score)


class _Window:
    """The probabilities that an answer begins or ends at each token of the context, or at the first token."""

    def __init__(self, row: TokenRow, start_logits: Array, end_logits: Array, first: int | None, place: int) -> None:
        self._row = row
        in_context = np.array([sequence == place for sequence in row.sequence_ids])
        possible = in_context | np.array([token == first for token in row.ids])
        self._tokens = np.flatnonzero(in_context)
        self._start = _probabilities(start_logits, possible)
        self._end = _probabilities(end_logits, possible)

    def no_answer(self) -> float:
        """The probability that the answer begins and ends at the first token, which means that there is none."""
        return float(self._start[0] * self._end[0])

    def best(self, context: str, limits: _Limits) -> list[Answer]:
        """The most likely answers, more than `top_k`, because those with equal texts are joined later."""
        outer = np.outer(self._start[self._tokens], self._end[self._tokens])
        starts, ends = np.nonzero(np.tril(np.triu(np.ones_like(outer, np.bool_)), limits.longest - 1))
        scores = outer[starts, ends]
        chosen = np.argsort(-scores, kind="stable")[: 2 * limits.top_k + 10]
        return [self._answer(context, starts[index], ends[index], scores[index]) for index in chosen]

    def _answer(self, context: str, start: Any, end: Any, score: Any) -> Answer:
        first, last = _words(self._row, int(self._tokens[start]), int(self._tokens[end]))
        begin, stop = self._row.offsets[first][0], self._row.offsets[last][1]
        return Answer(context[begin:stop], float(score), begin, stop)


def _probabilities(logits: Array, possible: NDArray[np.bool_]) -> Array:
    """Probabilities of the possible tokens; 0 for the others."""
    if not possible.any():
        return np.zeros_like(logits)
    return softmax(np.where(possible, logits, np.float32(-np.inf)))


def _words(row: TokenRow, first: int, last: int) -> tuple[int, int]:
    """The span from `first` to `last`, extended to whole words within the window."""
    if row.words[first] is None or row.words[last] is None:
        return first, last
    while first > 0 and _same_word(row, first, first - 1):
        first -= 1
    while last + 1 < len(row.ids) and _same_word(row, last, last + 1):
        last += 1
    return first, last


def _same_word(row: TokenRow, left: int, right: int) -> bool:
    words: Sequence[int | None] = row.words
    return words[left] == words[right] and row.sequence_ids[left] == row.sequence_ids[right]
