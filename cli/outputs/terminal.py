"""Protects terminals from control characters in bundles, files and answers."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import TextIO

from triform.runtime.printable import for_terminal


class Terminal(TextIOWrapper):
    r"""Shows control characters as escapes such as ``\x1b``; line breaks and tabs stay."""

    def write(self, text: str, /) -> int:
        """Write text; see the class."""
        super().write(for_terminal(text))
        return len(text)


def guard_terminals() -> None:
    """Make standard output and standard error a `Terminal` each, unless they are a file or a pipe."""
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)


def for_progress() -> TextIO:
    """Standard error, with the control characters that draw a progress bar."""
    return sys.__stderr__ if isinstance(sys.stderr, Terminal) and sys.__stderr__ is not None else sys.stderr


def _guarded(stream: TextIO) -> TextIO:
    if not isinstance(stream, TextIOWrapper) or not stream.isatty():
        return stream
    return Terminal(stream.buffer, encoding=stream.encoding, errors="replace", line_buffering=True)
