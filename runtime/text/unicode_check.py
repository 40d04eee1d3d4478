"""Checks that a text is valid Unicode: Python strings may hold lone surrogates, which tokenizers refuse."""

from __future__ import annotations


def invalid_at(text: str) -> int | None:
    """The position, counted from 1, of the first invalid character; None where the text is valid Unicode.

    A command line passes undecodable bytes as lone surrogates, and JSON can contain half of a surrogate pair.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start + 1
    return None
