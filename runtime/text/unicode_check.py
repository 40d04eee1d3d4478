"""Whether a text is valid Unicode: Python strings may hold halves of characters, which tokenizers refuse."""

from __future__ import annotations


def invalid_at(text: str) -> int | None:
    """Where a text is not valid Unicode, as the place of the character counted from 1; None where all of it is.

    A command line hands over bytes that are no text as lone surrogates, and JSON can write half of a surrogate pair.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start + 1
    return None
