"""Checks pairs of texts that a user passes."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.errors import InputError
from triform.runtime.text.checks import checked
from triform.runtime.text.pages import Page
from triform.runtime.text.rows import Pair


def pairs(items: Sequence[Pair]) -> Sequence[Pair]:
    """Return the same items.

    Raises:
        InputError: an item is not a pair of texts, or of a text and a page.
    """
    for number, item in enumerate(checked(items), 1):
        if isinstance(item, str | Page) or not isinstance(item, Sequence) or len(item) != 2:
            raise InputError(f"item {number} is not a pair of texts: {item!r:.60}")
    return [(first, second) for first, second in items]
