"""Checks the lists of texts or files that a user hands in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from triform.runtime.errors import InputError
from triform.runtime.text.rows import Pair

Items = TypeVar("Items", bound=Iterable[object])


def several(items: Items) -> Items:
    """The same items, unless they are a single text or file.

    Raises:
        InputError: they are. A text is a sequence of texts too: each of its characters would be taken for one.
    """
    if isinstance(items, str | bytes | Path):
        raise InputError(f"a list is needed, not a single {type(items).__name__}: put {items!r:.60} in brackets")
    return items


def pairs(items: Sequence[Pair]) -> Sequence[Pair]:
    """The same items, unless one of them is not a pair of texts.

    Raises:
        InputError: one is not.
    """
    for number, item in enumerate(several(items), 1):
        if isinstance(item, str) or len(item) != 2:
            raise InputError(f"item {number} is not a pair of texts: {item!r:.60}")
    return items
