"""Token classification: finds names and other spans in texts.

Tokens are grouped, scored and merged as transformers' TokenClassificationPipeline does with a fast tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triform.runtime.arithmetic import Array, softmax
from triform.runtime.encoder.inputs import check_whole
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.encoder.windows import run_windows
from triform.runtime.errors import InputError, option
from triform.runtime.text.pages import Page, Text, text_of
from triform.runtime.text.rows import TokenRow

AGGREGATIONS = ("none", "simple", "first", "average", "max")
# The label of tokens outside all spans.
_OUTSIDE = "O"


@dataclass(frozen=True)
class Tag:
    """One span of a text.

    Attributes:
        label: without B- or I-, unless the aggregation is ``none``.
        score: the probability of the label, averaged over the span's tokens or words.
        start: index of the first character of the span in the text.
        end: index after the last character.
        text: the text from `start` to `end`.
        words: of a page, the indices of the words in the span, from 0; empty for a text.
    """

    label: str
    score: float
    start: int
    end: int
    text: str
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Piece:
    """A token of the text. `scores` are probabilities (labels,); `continues` is False if it begins a word."""

    start: int
    end: int
    scores: Array
    continues: bool


@dataclass(frozen=True)
class _Span:
    label: str
    score: float
    start: int
    end: int


def tag(
    encoder: OpenEncoder, texts: Iterable[Text], *, aggregation: str = "simple", stride: int | None = None
) -> Iterator[list[Tag]]:
    """Find spans in texts of any length; a text that the model cannot read at once is read in windows.

    Args:
        encoder: a token-classification bundle.
        texts: any number of texts, or of pages for a bundle that reads boxes.
        aggregation: what becomes a span. ``none``: each token. ``simple``: neighboring tokens of the same label, where
            B- begins a span and I- continues it. The others first give all tokens of a word the same label: ``first``
            that of its first token, ``max`` that of the token with the highest probability, ``average`` the label with
            the highest mean probability.
        stride: tokens that neighboring windows share; a quarter of a window when None. If spans of two windows overlap,
            the longer one is kept, or the more probable one of the same length.

    Returns:
        for each text its spans with a label other than O, in order.

    Raises:
        UnsupportedError: the bundle is for another task.
        InputError: there is no such aggregation, or the stride does not fit; while iterating, a text is not valid
            Unicode, or the bundle needs a page and gets a text, or the other way around.
        BundleError: while iterating, the logits hold NaN or an infinity.
    """
    encoder.require("tag", "token-classification")
    if aggregation not in AGGREGATIONS:
        raise InputError(f"{option('aggregation')} must be one of {', '.join(AGGREGATIONS)}, not {aggregation!r}")
    room = encoder.reader().room()
    shared = room // 4 if stride is None else stride
    check_whole("stride", shared, 0, room - 1, expected=f"from 0 to {room - 1}")
    return _tagged(encoder, texts, aggregation, shared)


def _tagged(encoder: OpenEncoder, texts: Iterable[Text], aggregation: str, stride: int) -> Iterator[list[Tag]]:
    reader, words = encoder.reader(), _Words(encoder)
    inputs = ((text, reader.read_windows(text, stride=stride, number=number)) for number, text in enumerate(texts, 1))
    for text, rows, results in run_windows(encoder.step, inputs, ["logits"]):
        windows = [words.pieces(text, row, logits) for row, (logits,) in zip(rows, results, strict=True)]
        if aggregation == "none":
            whole = [piece for window in _without_repeats(windows, stride) for piece in window]
            spans = _named(_labeled(whole, encoder.info.labels))
        else:
            spans = [span for window in windows for span in _named(_grouped(window, encoder.info.labels, aggregation))]
            if len(windows) > 1:
                spans = _without_overlaps(spans)
        yield [_tag(text, span) for span in spans]


def _tag(text: Text, span: _Span) -> Tag:
    words = text.words_between(span.start, span.end) if isinstance(text, Page) else ()
    return Tag(span.label, span.score, span.start, span.end, text_of(text)[span.start : span.end], words)


class _Words:
    """Distinguishes tokens that begin a word from those that continue one, as transformers does."""

    def __init__(self, encoder: OpenEncoder) -> None:
        self._tokenizer = encoder.reader().tokenizer
        info = encoder.manifest.tokenizer
        self._unknown = self._tokenizer.token_to_id((info.special if info else {}).get("unk_token", ""))
        # If a tokenizer marks tokens inside a word, they are longer than their text.
        self._marks = bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))

    def pieces(self, text: Text, row: TokenRow, logits: Array) -> list[_Piece]:
        """The tokens of a row that come from its text; `logits` are (sequence, labels)."""
        scores, plain = softmax(logits), text_of(text)
        return [
            _Piece(
                start,
                end,
                scores[index],
                _same_word(row, index)
                if isinstance(text, Page)
                else self._continues(plain, row.ids[index], start, end),
            )
            for index, (start, end) in enumerate(row.offsets)
            if row.sequence_ids[index] is not None
        ]

    def _continues(self, text: str, token: int, start: int, end: int) -> bool:
        if token == self._unknown:
            return False
        if self._marks:
            return len(self._tokenizer.id_to_token(token)) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]


def _same_word(row: TokenRow, index: int) -> bool:
    """Whether a token of a page is of the same word as the one before it."""
    return index > 0 and row.words[index - 1] == row.words[index]


def _named(spans: Iterable[_Span]) -> list[_Span]:
    return [span for span in spans if span.label != _OUTSIDE]


def _labeled(pieces: Iterable[_Piece], labels: Sequence[str]) -> list[_Span]:
    """A span for each token, with its most likely label."""
    return [_best(piece.scores, labels, piece.start, piece.end) for piece in pieces]


def _best(scores: Any, labels: Sequence[str], start: int, end: int) -> _Span:
    index = int(scores.argmax())
    return _Span(labels[index], float(scores[index]), start, end)


def _grouped(pieces: list[_Piece], labels: Sequence[str], aggregation: str) -> list[_Span]:
    """Join neighbors of the same label into one span."""
    if aggregation == "simple":
        spans = _labeled(pieces, labels)
    else:
        spans = [
            _best(_word_scores(word, aggregation), labels, word[0].start, word[-1].end) for word in _in_words(pieces)
        ]
    groups: list[list[_Span]] = []
    for span in spans:
        if groups and _continues(groups[-1][-1].label, span.label):
            groups[-1].append(span)
        else:
            groups.append([span])
    return [_joined(group) for group in groups]


def _in_words(pieces: Iterable[_Piece]) -> list[list[_Piece]]:
    words: list[list[_Piece]] = []
    for piece in pieces:
        if words and piece.continues:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _word_scores(word: list[_Piece], aggregation: str) -> Any:
    if aggregation == "first":
        return word[0].scores
    if aggregation == "max":
        return max(word, key=lambda piece: piece.scores.max()).scores
    return np.mean([piece.scores for piece in word], axis=0)


def _continues(before: str, label: str) -> bool:
    return not label.startswith("B-") and _kind(before) == _kind(label)


def _kind(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _joined(group: list[_Span]) -> _Span:
    # Not `_kind`: the pipeline removes everything up to the first hyphen.
    label = group[0].label.split("-", 1)[-1]
    return _Span(label, float(np.mean([span.score for span in group])), group[0].start, group[-1].end)


def _without_overlaps(spans: list[_Span]) -> list[_Span]:
    """Keep the longer one of overlapping spans, or the more probable one of the same length."""
    kept: list[_Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if kept and kept[-1].start <= span.start < kept[-1].end:
            kept[-1] = max(kept[-1], span, key=_preference)
        else:
            kept.append(span)
    return kept


def _preference(span: _Span) -> tuple[int, float]:
    return span.end - span.start, span.score


def _without_repeats(windows: list[list[_Piece]], stride: int) -> list[list[_Piece]]:
    """Keep each token once, from the window with more of its context."""
    before, last = stride // 2, len(windows) - 1
    after = stride - before
    return [
        window[before if index > 0 else 0 : len(window) - after if index < last else None]
        for index, window in enumerate(windows)
    ]
