"""Texts of any length for models that read so much at once: cut at the ends of sentences, and put together again."""

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

# Windows share as many whole sentences as fit into this part of what the model reads.
_SHARED = 6


@dataclass(frozen=True)
class Line:
    """A line of a text: what the model reads of it, and the white space around that, the line's end included."""

    before: str
    pieces: list[str]
    after: str


class Cutter:
    """Cuts texts into pieces that a model can read.

    Attributes:
        cut: sentences so far that were longer than the model reads, and were cut between words.
    """

    def __init__(
        self, length: Callable[[str], int], limit: int, *, language: str | None = None, strict: bool = False
    ) -> None:
        """Keep what is to be kept to.

        Args:
            length: tokens of a text as the model reads it, with all that is put around it.
            limit: tokens that the model reads.
            language: of the texts, an ISO 639 code, for what ends a sentence in it; English when None.
            strict: refuse a sentence that is too long, rather than cutting it.
        """
        self._length = length
        self._limit = limit
        self._language = language or "en"
        self._strict = strict
        self.cut = 0

    def lines(self, text: str, number: int = 1) -> list[Line]:
        """The lines of a text, each as few pieces as whole sentences make; blank ones have none.

        Args:
            text: the text.
            number: of the text, for errors.

        Raises:
            InputError: a sentence is too long, and the cutter is strict.
            UnsupportedError: a line is too long, and what finds sentences is not installed.
        """
        lines = []
        for line in text.splitlines(keepends=True):
            content = line.strip()
            start = line.find(content)
            pieces = [piece.strip() for piece in self._packed(content, number, shared=0)] if content else []
            lines.append(Line(line[:start], pieces, line[start + len(content) :]))
        return lines

    def windows(self, text: str, number: int = 1) -> list[str]:
        """A text in as few pieces as whole sentences make, each beginning with the last sentences of the one before.

        Arguments and errors as `lines`.
        """
        return [piece.strip() for piece in self._packed(text.strip(), number, shared=self._limit // _SHARED)]

    def length(self, text: str) -> int:
        """Tokens of a text as the model reads it."""
        return self._length(text)

    def _packed(self, text: str, number: int, shared: int) -> list[str]:
        if self._length(text) <= self._limit:
            return [text]
        around = self._length("")
        # Tokens of sentences by themselves add up to about those of all; `_closed` makes sure.
        parts = [(part, self._length(part) - around) for part in self._sentences(text, number)]
        packed, held = [], 0
        while held < len(parts):
            end, room = held, self._limit - around
            while end < len(parts) and (end == held or parts[end][1] <= room):
                room -= parts[end][1]
                end += 1
            end = self._closed(parts, held, end)
            packed.append("".join(part for part, _ in parts[held:end]))
            if end == len(parts):
                break
            held = _shared_from(parts, held, end, min(shared, self._limit - around - parts[end][1]))
        return packed

    def _closed(self, parts: Sequence[tuple[str, int]], start: int, end: int) -> int:
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
        """The sentence, or halves of halves of it, cut between words where there are any."""
        if self._length(sentence) <= self._limit:
            yield sentence
            return
        if len(sentence) < 2:
            raise InputError(f"what is put around a text leaves no room in the model's {self._limit} tokens")
        middle = len(sentence) // 2
        spaces = (place for place in range(1, len(sentence)) if sentence[place - 1].isspace())
        place = min(spaces, key=lambda space: abs(space - middle), default=middle)
        yield from self._fitting(sentence[:place])
        yield from self._fitting(sentence[place:])


def _shared_from(parts: Sequence[tuple[str, int]], start: int, end: int, room: int) -> int:
    """Where the next window begins: before `end` by the sentences that fit into `room`, but behind `start`."""
    first = end
    while first - 1 > start and parts[first - 1][1] <= room:
        first -= 1
        room -= parts[first][1]
    return first


def sentences(text: str, language: str) -> list[str]:
    """The sentences of a text, which together are all of it.

    They are found by Wikimedia's sentencex: rules and lists of abbreviations for some 300 languages, in 1.2 MB that
    need nothing else. Unicode's own rules (UAX #29) know no abbreviations, and end a sentence behind "Dr.".

    Args:
        text: the text.
        language: an ISO 639 code; one that is not known is treated as English.

    Raises:
        UnsupportedError: sentencex is not installed.
    """
    if find_spec("sentencex") is None:
        raise missing_extra(
            "a text longer than the model reads is cut at the ends of sentences, which needs sentencex", "documents"
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
    """Sentences as a line: a space between them, except behind a sign as wide as a Chinese character."""
    line = ""
    for part in parts:
        line += joint(line) + part
    return line


def joint(text: str) -> str:
    """What goes between `text` and a sentence behind it."""
    return "" if not text or unicodedata.east_asian_width(text[-1]) in "WF" else " "


def put_together(lines: Sequence[Line], answers: Sequence[str]) -> str:
    """What became of the pieces of `lines`, in their order, as a text of the same lines."""
    source, text = iter(answers), ""
    for line in lines:
        text += line.before + join(next(source) for _ in line.pieces) + line.after
    return text


def in_pieces(
    texts: Iterable[str],
    cut: Callable[[str, int], list[Line]],
    work: Callable[[Iterable[str]], Iterator[Result]],
) -> Iterator[tuple[list[Line], list[Result]]]:
    """Work on the pieces of any number of texts, in bounded memory; yields the lines of each text, and its results.

    Args:
        texts: the texts.
        cut: gives the lines of a text, the first of which has the number 1.
        work: takes pieces lazily, gives a result a piece.
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
    cutter: Cutter,
    max_length: int,
    work: Callable[[Iterable[str]], Iterator[Result]],
    text_of: Callable[[Result], str],
) -> list[list[Result]]:
    """Sum up texts of any length: window by window, and the joined summaries again while they are longer than asked.

    Args:
        texts: none of them blank.
        cutter: of the model.
        max_length: tokens that a summary may have.
        work: takes texts lazily, gives a result a text.
        text_of: the summary of a result.

    Returns:
        for each text the results that together are its summary: one, unless summing them up makes them no shorter.
    """
    results_of: list[list[Result]] = [[] for _ in texts]
    pending = dict(enumerate(texts))
    while pending:
        cut = {index: cutter.windows(text, index + 1) for index, text in pending.items()}
        results = work(window for windows in cut.values() for window in windows)
        following: dict[int, str] = {}
        for index, windows in cut.items():
            results_of[index] = [next(results) for _ in windows]
            together = join(text_of(result) for result in results_of[index])
            length, around = cutter.length(together), cutter.length("")
            if len(windows) > 1 and max_length + around < length < cutter.length(pending[index]):
                following[index] = together
        pending = following
    return results_of
