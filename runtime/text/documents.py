"""Splits long texts at the ends of sentences into pieces that fit a model's context, and joins the results."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeVar

from triform.runtime.errors import InputError
from triform.runtime.extras import missing_extra

Result = TypeVar("Result")

# Neighboring windows share as many whole sentences as fit into this fraction of the limit: a sixth.
_SHARED = 6


@dataclass(frozen=True)
class Line:
    """A line of a text.

    Attributes:
        before: the white space at its start.
        pieces: its content, in pieces that fit the model; empty for a blank line.
        after: the white space at its end, with the line break.
    """

    before: str
    pieces: list[str]
    after: str


class Splitter:
    """Splits texts into pieces that fit a model's context.

    Attributes:
        cut: number of sentences so far that did not fit, and were split between words.
    """

    def __init__(
        self, length: Callable[[str], int], limit: int, *, language: str | None = None, strict: bool = False
    ) -> None:
        """Make a splitter.

        Args:
            length: counts the tokens of a text, with the special tokens and any prefix that the model needs.
            limit: most tokens of a piece, counted by `length`.
            language: of the texts, an ISO 639 code, which decides how sentences end; English when None.
            strict: whether to refuse a sentence that is too long, rather than split it.
        """
        self._length = length
        self._limit = limit
        self._language = language or "en"
        self._strict = strict
        self.cut = 0

    def lines(self, text: str, number: int = 1) -> list[Line]:
        """Split a text into lines, and each line into as few pieces of whole sentences as possible.

        Args:
            text: the text.
            number: of the text, for errors.

        Raises:
            InputError: a sentence is too long, and the splitter is strict; or not even one character fits.
            UnsupportedError: a line is too long, and sentencex is not installed.
        """
        lines = []
        for line in text.splitlines(keepends=True):
            content = line.strip()
            start = line.find(content)
            pieces = [piece.strip() for piece in self._packed(content, number, shared=0)] if content else []
            lines.append(Line(line[:start], pieces, line[start + len(content) :]))
        return lines

    def windows(self, text: str, number: int = 1) -> list[str]:
        """Split a text into windows of whole sentences; each begins with the last sentences of the one before.

        Arguments and errors as `lines`.
        """
        return [piece.strip() for piece in self._packed(text.strip(), number, shared=self._limit // _SHARED)]

    def length(self, text: str) -> int:
        """The number of tokens of a text, with the special tokens and any prefix that the model needs."""
        return self._length(text)

    def _packed(self, text: str, number: int, shared: int) -> list[str]:
        if self._length(text) <= self._limit:
            return [text]
        around = self._length("")
        # The lengths of sentences add up only roughly to the length of a piece; `_fitting_end` counts exactly.
        parts = [(part, self._length(part) - around) for part in self._sentences(text, number)]
        packed, start = [], 0
        while start < len(parts):
            end, room = start, self._limit - around
            while end < len(parts) and (end == start or parts[end][1] <= room):
                room -= parts[end][1]
                end += 1
            end = self._fitting_end(parts, start, end)
            packed.append("".join(part for part, _ in parts[start:end]))
            if end == len(parts):
                break
            start = _next_start(parts, start, end, min(shared, self._limit - around - parts[end][1]))
        return packed

    def _fitting_end(self, parts: Sequence[tuple[str, int]], start: int, end: int) -> int:
        while end > start + 1 and self._length("".join(part for part, _ in parts[start:end]).strip()) > self._limit:
            end -= 1
        return end

    def _sentences(self, text: str, number: int) -> Iterator[str]:
        for sentence in sentences(text, self._language):
            fitting = list(self._fitting(sentence))
            if len(fitting) > 1 and self._strict:
                raise InputError(
                    f"text {number} has a sentence longer than the model's {self._limit} tokens: {sentence[:60]!r}"
                )
            self.cut += len(fitting) > 1
            yield from fitting

    def _fitting(self, sentence: str) -> Iterator[str]:
        """The sentence, halved until the parts fit, between words if possible."""
        if self._length(sentence) <= self._limit:
            yield sentence
            return
        if len(sentence) < 2:
            raise InputError(
                f"special tokens and prefixes leave no room for a text in the model's {self._limit} tokens"
            )
        middle = len(sentence) // 2
        spaces = (place for place in range(1, len(sentence)) if sentence[place - 1].isspace())
        place = min(spaces, key=lambda space: abs(space - middle), default=middle)
        yield from self._fitting(sentence[:place])
        yield from self._fitting(sentence[place:])


def _next_start(parts: Sequence[tuple[str, int]], start: int, end: int, room: int) -> int:
    """Where the next window begins: as many sentences before `end` as fit into `room`, but after `start`."""
    first = end
    while first - 1 > start and parts[first - 1][1] <= room:
        first -= 1
        room -= parts[first][1]
    return first


def sentences(text: str, language: str) -> list[str]:
    """Split a text into sentences. Joined without a separator, they are the text again.

    Wikimedia's sentencex has rules and abbreviations for some 300 languages, takes 1.2 MB and has no dependencies.
    Unicode's rules (UAX #29) know no abbreviations: they end a sentence after "Dr.".

    Args:
        text: the text.
        language: an ISO 639 code; an unknown one is treated as English.

    Raises:
        UnsupportedError: sentencex is not installed.
    """
    if find_spec("sentencex") is None:
        raise missing_extra(
            "a text longer than the model's context is split into sentences, which needs sentencex", "documents"
        )
    from sentencex import segment

    whole: list[str] = []
    for part in segment(language, text):
        if whole and part.isspace():
            whole[-1] += part
        else:
            whole.append(part)
    return whole


def join(parts: Iterable[str]) -> str:
    """Join sentences to a line: with a space in between, except after a full-width character such as Chinese ones."""
    line = ""
    for part in parts:
        line += joint(line) + part
    return line


def joint(text: str) -> str:
    """The separator between `text` and a sentence after it: a space or nothing."""
    return "" if not text or unicodedata.east_asian_width(text[-1]) in "WF" else " "


def put_together(lines: Sequence[Line], answers: Sequence[str]) -> str:
    """Join the answers to the pieces of `lines`, in order, to a text with the same lines."""
    source, text = iter(answers), ""
    for line in lines:
        text += line.before + join(next(source) for _ in line.pieces) + line.after
    return text


def in_pieces(
    texts: Iterable[str],
    cut: Callable[[str, int], list[Line]],
    work: Callable[[Iterable[str]], Iterator[Result]],
) -> Iterator[tuple[list[Line], list[Result]]]:
    """Process the pieces of any number of texts, in bounded memory.

    Args:
        texts: the texts.
        cut: splits a text, given with its number from 1, into lines.
        work: reads pieces lazily and yields a result for each.

    Yields:
        the lines of each text, and the results of their pieces.
    """
    waiting: deque[tuple[list[Line], int]] = deque()

    def pieces() -> Iterator[str]:
        for number, text in enumerate(texts, 1):
            lines = cut(text, number)
            waiting.append((lines, sum(len(line.pieces) for line in lines)))
            for line in lines:
                yield from line.pieces

    results: list[Result] = []
    for result in work(pieces()):
        while not waiting[0][1]:
            yield waiting.popleft()[0], []
        results.append(result)
        if len(results) == waiting[0][1]:
            yield waiting.popleft()[0], results
            results = []
    yield from ((lines, []) for lines, _ in waiting)


def summaries(
    texts: Sequence[str],
    splitter: Splitter,
    max_length: int,
    work: Callable[[Iterable[str]], Iterator[Result]],
    text_of: Callable[[Result], str],
) -> list[list[Result]]:
    """Summarize texts of any length: each window, and then the joined summaries again while they are too long.

    Args:
        texts: none of them blank.
        splitter: of the model.
        max_length: most tokens of a summary.
        work: reads texts lazily and yields a result for each.
        text_of: the summary in a result.

    Returns:
        for each text, the results whose joined texts are its summary: one, unless another round does not shorten them.
    """
    results_of: list[list[Result]] = [[] for _ in texts]
    pending = dict(enumerate(texts))
    while pending:
        windows_of = {index: splitter.windows(text, index + 1) for index, text in pending.items()}
        results = work(window for windows in windows_of.values() for window in windows)
        too_long: dict[int, str] = {}
        for index, windows in windows_of.items():
            results_of[index] = [next(results) for _ in windows]
            joined = join(text_of(result) for result in results_of[index])
            length, around = splitter.length(joined), splitter.length("")
            if len(windows) > 1 and max_length + around < length < splitter.length(pending[index]):
                too_long[index] = joined
        pending = too_long
    return results_of
