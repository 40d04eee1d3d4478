"""Reads the messages that a user types in ``triform chat``, which may have several lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType

_FENCE = '"""'
_FIRST, _MORE = "> ", ". "


class Lines:
    """Reads messages: one line, or more where a line ends in a backslash or between lines of three double quotes.

    Attributes:
        interactive: whether standard input is a terminal, which shows a prompt.
    """

    def __init__(self, history: Path | None = None) -> None:
        """Prepare to read standard input.

        Args:
            history: a file of lines typed earlier, which need not exist yet.

        Raises:
            InputError: the file cannot be read, or no lines are typed.
        """
        from triform.runtime.errors import refuse_unused

        self.interactive = sys.stdin.isatty()
        if isinstance(sys.stdin, TextIOWrapper):
            # A message with bytes that are not text is refused as a whole.
            sys.stdin.reconfigure(errors="surrogateescape")
        # The line editor writes its prompt to standard output, so it is not used if results go to a file.
        self._editor = _line_editor() if self.interactive and sys.stdout.isatty() else None
        typed = "keeps the lines that are typed on a terminal, and standard input or output is none"
        refuse_unused(typed, history=history is not None and self._editor is None)
        self._history = history
        if history is not None and self._editor is not None and history.exists():
            self._with_history(self._editor.read_history_file, history)

    def message(self) -> str | None:
        """The next message; None at the end of input."""
        line = self._line(_FIRST)
        if line is None:
            return None
        if line.strip() == _FENCE:
            return "\n".join(self._fenced())
        parts = [line]
        while parts[-1].endswith("\\"):
            parts[-1] = parts[-1][:-1]
            line = self._line(_MORE)
            if line is None:
                break
            parts.append(line)
        return "\n".join(parts)

    def close(self) -> None:
        """Write the history to its file, if there is one.

        Raises:
            InputError: it cannot be written.
        """
        if self._history is not None and self._editor is not None:
            self._with_history(self._editor.write_history_file, self._history)

    def _fenced(self) -> list[str]:
        lines: list[str] = []
        while (line := self._line(_MORE)) is not None and line.strip() != _FENCE:
            lines.append(line)
        return lines

    def _line(self, prompt: str) -> str | None:
        if self._editor is not None:
            with suppress(EOFError):
                return input(prompt)
            return None
        if self.interactive:
            print(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None

    def _with_history(self, work: Callable[[Path], None], path: Path) -> None:
        from triform.runtime.errors import InputError

        try:
            work(path)
        except OSError as error:
            raise InputError(f"--history: {path} cannot be used: {error.strerror or error}") from None


def _line_editor() -> ModuleType | None:
    """Python's readline, which `input` uses once it is imported; None where Python lacks it."""
    try:
        import readline
    except ImportError:
        return None
    return readline
