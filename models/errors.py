"""The error of `models/`, which `export/` turns into an error for the user."""

import re

_LONGEST = 400
# What PyTorch and transformers put beside a message: a place in their source, and whom to tell.
_PLACES = (
    (re.compile(r'\s*INTERNAL ASSERT FAILED at "[^"]*":\d+, please report a bug to PyTorch\.?'), " fails:"),
    (re.compile(r"\[enforce fail at [^\]]*\][^.]*\.\s*"), ""),
    (re.compile(r"\S+\.(?:cpp|cc|cu|cuh|h|hpp):\d+:\s*"), ""),
    (re.compile(r"<module '([\w.]+)' from '[^']*'>"), r"\1"),
)


class UnsupportedModelError(ValueError):
    """The architecture, or a setting of its config, cannot be exported."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that is not blank, without its full stop; else its type's name.

    Where that line ends in a colon, the next one is part of it. A long one, which may quote a whole file, is cut, and
    places in the source of PyTorch and transformers are left out.
    """
    # A KeyError's message is the bare key.
    text = repr(error) if isinstance(error, KeyError) else str(error)
    for pattern, instead in _PLACES:
        text = pattern.sub(instead, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1]).rstrip(".:")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
