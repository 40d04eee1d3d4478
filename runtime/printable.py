"""Text of unknown origin, made safe to show: nothing in it can steer a terminal or run over several lines."""

from __future__ import annotations

import re

# Control characters by which a terminal is steered; line breaks and tabs are text.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# How much of a value an error message quotes.
_QUOTED = 80


def one_line(text: str) -> str:
    r"""The text in one line, with escapes such as ``\x1b`` in place of what cannot be printed."""
    joined = " ".join(line.strip() for line in text.splitlines())
    return "".join(letter if _shows(letter) else _escaped(letter) for letter in joined)


def for_terminal(text: str) -> str:
    r"""The text with its lines and tabs, and with escapes such as ``\x1b`` in place of control characters."""
    return _STEERING.sub(lambda match: _escaped(match[0]), text)


def shortened(text: str, most: int = _QUOTED) -> str:
    """The text, or its first characters and an ellipsis where it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(value: object) -> str:
    """A value as Python writes it, shortened."""
    return shortened(repr(value))


def _shows(letter: str) -> bool:
    # Python counts only one of Unicode's spaces as printable, and control characters among the spaces.
    return letter.isprintable() or (letter.isspace() and letter > "\x9f")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
