"""Makes untrusted text safe to print: it cannot control a terminal or, in a message, take more than one line."""

from __future__ import annotations

import re

# Control characters that can control a terminal; line feeds and tabs are text.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# The most characters of a value that an error message quotes.
_QUOTED = 80


def one_line(text: str) -> str:
    r"""The text in one line, with escapes such as ``\x1b`` for characters that are not printable."""
    joined = " ".join(filter(None, (line.strip() for line in text.splitlines())))
    return "".join(letter if _shows(letter) else _escaped(letter) for letter in joined)


def for_terminal(text: str) -> str:
    r"""The text with escapes such as ``\x1b`` for control characters; line feeds and tabs stay."""
    return _STEERING.sub(lambda match: _escaped(match[0]), text)


def shortened(text: str, most: int = _QUOTED) -> str:
    """The text, or its first characters and an ellipsis if it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(value: object) -> str:
    """The repr of a value, shortened."""
    return shortened(repr(value))


def _shows(letter: str) -> bool:
    # To Python, only one of Unicode's spaces is printable, and some control characters are spaces.
    return letter.isprintable() or (letter.isspace() and letter > "\x9f")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
