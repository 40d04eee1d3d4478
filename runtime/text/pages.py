"""Words and where each stands on its page, for models that read both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.text_info import BoxesInfo
from triform.runtime.errors import InputError
from triform.runtime.printable import quoted

# What the width and the height of a page count as, where its size is not given.
_PARTS = 1000
# A line of `laid_out`, and how many of them fill a page.
_ACROSS, _DOWN = 10, 50


@dataclass(frozen=True)
class Page:
    """A page's words and their boxes, in place of a text, for models that read where each word stands.

    Attributes:
        words: in reading order. Spaces around a word do not count, and words without characters have no tokens.
        boxes: of each word (left, top, right, bottom), from the page's upper left corner.
        size: the page's width and height in the unit of the boxes, such as pixels. Without it boxes are in thousandths
            of the page: whole numbers from 0 to 1000.

    Raises:
        InputError: there are not as many boxes as words, a box is not on the page or is reversed, or a value is of
            another kind.

    Example:
        >>> page = Page(["Total:", "12.50"], [[100, 40, 190, 60], [210, 40, 290, 60]], size=(850, 1100))
        >>> page.text
        'Total: 12.50'
    """

    words: Sequence[str]
    boxes: Sequence[Sequence[float]]
    size: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not _is_list(self.words) or not all(isinstance(word, str) for word in self.words):
            raise InputError("the words of a page must be a list of texts")
        if not _is_list(self.boxes):
            raise InputError(
                f"the boxes of a page must be a list, with four numbers for each word, not {self.boxes!r:.60}"
            )
        if len(self.boxes) != len(self.words):
            raise InputError(f"a page of {len(self.words)} words needs as many boxes, not {len(self.boxes)}")
        size = None if self.size is None else _numbers(self.size, 2)
        if self.size is not None and (size is None or min(size) <= 0):
            raise InputError(f"the size of a page must be its width and height, above 0, not {self.size!r:.60}")
        for number, box in enumerate(self.boxes, 1):
            _check_box(number, box, size)
        # Copies: what was checked stays so, whatever becomes of the caller's lists.
        object.__setattr__(self, "words", tuple(self.words))
        object.__setattr__(self, "boxes", tuple(tuple(box) for box in self.boxes))
        object.__setattr__(self, "size", None if self.size is None else tuple(self.size))

    @cached_property
    def text(self) -> str:
        """The words with a space between them."""
        return " ".join(word for word in map(str.strip, self.words) if word)

    @cached_property
    def _owners(self) -> NDArray[np.int64]:
        """For each character of `text` the index of its word; a space belongs to the word after it."""
        lengths = np.array([len(word.strip()) for word in self.words], np.int64)
        return np.repeat(np.arange(len(lengths)), np.where(lengths > 0, lengths + 1, 0))[1:]

    def word_at(self, start: int, end: int) -> int:
        """The index of the word that a token ends in.

        Args:
            start: where the token begins in `text`.
            end: after its last character; `start` for a token of no character, which belongs to the word after it.
        """
        return int(self._owners[min(max(end - 1, start), len(self._owners) - 1)])

    def words_between(self, start: int, end: int) -> tuple[int, ...]:
        """The indices of the words of the characters of `text` from `start` to before `end`, in order."""
        return tuple(np.unique(self._owners[start:end]).tolist())


# A text, or in its place a page.
Text = str | Page


def text_of(text: Text) -> str:
    """The text itself; of a page its words with a space between them.

    Raises:
        InputError: it is neither.
    """
    if not isinstance(text, str | Page):
        raise InputError(f"{quoted(text)} is not a text")
    return text.text if isinstance(text, Page) else text


def parts_of(text: object, number: int) -> tuple[Text, ...]:
    """A text by itself, or the two of a pair; a list of texts or an array may hold anything.

    Raises:
        InputError: it is neither; `number` names it.
    """
    if isinstance(text, str | Page):
        return (text,)
    parts = () if isinstance(text, Mapping) or not isinstance(text, Iterable) else tuple(text)
    if len(parts) != 2 or not all(isinstance(part, str | Page) for part in parts):
        raise InputError(f"text {number} is {quoted(text)}, which is neither a text nor a pair of texts")
    return parts


def laid_out(text: str) -> Page:
    """A page with the words of a text line by line, for trying models."""
    words = text.split()
    boxes = []
    for index in range(len(words)):
        row, column = divmod(index, _ACROSS)
        left, top = column * _PARTS // _ACROSS, row % _DOWN * _PARTS // _DOWN
        boxes.append((left, top, left + 90, top + 15))
    return Page(words, boxes)


def scaled(page: Page, info: BoxesInfo) -> NDArray[Any]:
    """The boxes of a page's words as a graph takes them: int64 or float32 (words, 4).

    Thousandths are cut off, not rounded, as in transformers' processors of documents.
    """
    boxes = np.array(page.boxes, np.float64).reshape(-1, 4)
    if page.size is not None:
        width, height = page.size
        boxes = info.scale * (boxes / (width, height, width, height))
    elif info.scale != _PARTS:
        boxes = boxes * info.scale / _PARTS
    return boxes.astype(np.int64 if info.whole else np.float32)


def _is_list(values: object) -> bool:
    """Whether it has a length and an order."""
    ordered = isinstance(values, Sequence) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return ordered and not isinstance(values, str | bytes)


def _numbers(values: object, count: int) -> list[float] | None:
    """So many finite numbers; None for anything else."""
    if isinstance(values, str | bytes | dict) or not isinstance(values, Sequence | np.ndarray) or len(values) != count:
        return None
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        return None
    try:
        numbers = [float(value) for value in values]
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _check_box(number: int, box: object, size: list[float] | None) -> None:
    numbers = _numbers(box, 4)
    if numbers is None:
        raise InputError(f"box {number} of the page must be four numbers, left, top, right and bottom, not {box!r:.60}")
    left, top, right, bottom = numbers
    shown = f"box {number} of the page, {left:g} {top:g} {right:g} {bottom:g},"
    if size is None and not all(isinstance(value, Integral) or float(value).is_integer() for value in numbers):
        raise InputError(
            f"{shown} is not in thousandths of the page, whole numbers from 0 to 1000: give the page's size"
        )
    if right < left or bottom < top:
        raise InputError(f"{shown} is reversed: left must not be more than right, nor top more than bottom")
    width, height = size or (_PARTS, _PARTS)
    if left < 0 or top < 0 or right > width or bottom > height:
        remedy = ": give the page's size in the unit of the boxes" if size is None else ""
        raise InputError(f"{shown} is not within a page of {width:g} by {height:g}{remedy}")
