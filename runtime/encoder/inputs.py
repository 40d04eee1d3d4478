"""Checks pairs of texts and numbers that a user passes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from triform.runtime.errors import InputError, option
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


def check_whole(name: str, value: object, low: int, high: int | None = None, *, expected: str | None = None) -> None:
    """Check a whole number.

    Args:
        name: of the argument.
        value: given for it.
        low: the smallest that it may be.
        high: the largest; any when None.
        expected: the range in words, for the message; "at least" the smallest when None.

    Raises:
        InputError: it is something else, such as a fraction, or out of range.
    """
    # bool counts as Integral, but True as a number is a mistake.
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{option(name)} must be a whole number, not {value!r:.60}")
    if int(value) < low or (high is not None and int(value) > high):
        raise InputError(f"{option(name)} must be {expected or f'at least {low}'}, not {value}")
