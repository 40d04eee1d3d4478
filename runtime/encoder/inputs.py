"""Checks lists of texts or files that a user passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from triform.runtime.errors import InputError
from triform.runtime.text.pages import Page
from triform.runtime.text.rows import Pair

Items = TypeVar("Items", bound=Iterable[object])


def checked(items: Items) -> Items:
    """Return the same items.

    Raises:
        InputError: they are a single text, page or file. A text is a sequence too, each character of which would count
            as a text.
    """
    if isinstance(items, str | bytes | Path | Page):
        raise InputError(f"a list is needed, not a single {type(items).__name__}: put {items!r:.60} in brackets")
    return items


def pairs(items: Sequence[Pair]) -> Sequence[Pair]:
    """Return the same items.

    Raises:
        InputError: an item is not a pair of texts, or of a text and a page.
    """
    for number, item in enumerate(checked(items), 1):
        if isinstance(item, str | Page) or len(item) != 2:
            raise InputError(f"item {number} is not a pair of texts: {item!r:.60}")
    return [(first, second) for first, second in items]
