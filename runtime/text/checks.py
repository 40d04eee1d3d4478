"""Checks what a user passes as texts: a list of them, each valid Unicode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from triform.runtime.errors import InputError
from triform.runtime.printable import quoted
from triform.runtime.text.pages import Page

Items = TypeVar("Items", bound=Iterable[object])


def invalid_at(text: str) -> int | None:
    """The position, counted from 1, of the first invalid character; None where the text is valid Unicode.

    A command line passes undecodable bytes as lone surrogates, and JSON can contain half of a surrogate pair.
    Tokenizers refuse them.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start + 1
    return None


def checked(items: Items) -> Items:
    """Return the same items.

    Raises:
        InputError: they are a single text, page or file, or no items at all. A text is a sequence too, each character
            of which would count as a text; and of a mapping the keys would.
    """
    if isinstance(items, str | bytes | Path | Page):
        raise InputError(f"a list is needed, not a single {type(items).__name__}: put {items!r:.60} in brackets")
    if not isinstance(items, Iterable) or isinstance(items, Mapping):
        raise InputError(f"a list is needed, not {quoted(items)}")
    return items
