"""What a user types to ``triform chat``: lines, some of which go together."""

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
    """Reads messages: a line each, longer where a line ends in a backslash, or between lines of three double quotes.

    Attributes:
        interactive: whether somebody sits at a terminal, who is prompted.
    """

    def __init__(self, history: Path | None = None) -> None:
        """Get ready to read standard input.

        Args:
            history: a file of lines typed earlier, to go on with; there need not be one yet.

        Raises:
            InputError: the file cannot be read.
        """
        self.interactive = sys.stdin.isatty()
        if isinstance(sys.stdin, TextIOWrapper):
            # Bytes that are no text are refused with the message that they are part of.
            sys.stdin.reconfigure(errors="surrogateescape")
        # Where results go elsewhere, what edits lines would write its prompt there too.
        self._editor = _line_editor() if self.interactive and sys.stdout.isatty() else None
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
        """Write the history, where it has a file.

        Raises:
            InputError: it cannot be written.
        """
        if self._history is not None and self._editor is not None:
            self._with_history(self._editor.write_history_file, self._history)

    def _fenced(self) -> list[str]:
        found: list[str] = []
        while (line := self._line(_MORE)) is not None and line.strip() != _FENCE:
            found.append(line)
        return found

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
    """Python's readline, which `input` uses once it is imported; not every Python has it."""
    try:
        import readline
    except ImportError:
        return None
    return readline
