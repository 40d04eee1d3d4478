"""Reads one whole text: from an argument, a file or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from triform.runtime.errors import InputError
from triform.runtime.text.encoding import decode_text

# Of the command that runs.
_read: set[Path] = set()


def whole_text(what: str, text: str | None, file: Path | None = None) -> str:
    """The text of an argument or a file; standard input without either, or for ``-``.

    One line break at the end of a file or of standard input is removed, as the shell does for ``$(cat FILE)``: ``echo``
    and editors add it, and it is not part of a prompt.

    Args:
        what: the name of the text in errors.
        text: the argument, if any.
        file: the file to read instead, if any; ``-`` is standard input.

    Raises:
        InputError: both are given, nothing can be read, or it is not text.
    """
    if text is not None and file is not None:
        raise InputError(f"give the {what} or --file, not both")
    if text is not None and text != "-":
        return text
    if text is None and file is None and sys.stdin.isatty():
        raise InputError(f"there is no {what}: give it as an argument, with --file, or on standard input")
    if file is None or str(file) == "-":
        return _read_stdin(what).removesuffix("\n")
    return read_text_file(what, file).removesuffix("\n")


def read_text_file(what: str, file: Path) -> str:
    """All of a text file, in any encoding that `decode_text` knows.

    Args:
        what: the name of the text in errors.
        file: to read.

    Raises:
        InputError: it cannot be read, or is not text.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"the {what} in {file} cannot be read: {error.strerror or error}") from None
    _read.add(file.absolute())
    return decode_text(content, f"the {what} in {file}")


def files_read() -> frozenset[Path]:
    """The files that `read_text_file` has read since `forget_files`, which no output may replace."""
    return frozenset(_read)


def forget_files() -> None:
    """Begin another command."""
    _read.clear()


def _read_stdin(what: str) -> str:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        return sys.stdin.read()
    try:
        return decode_text(stream.read(), f"the {what} in standard input")
    except OSError as error:
        raise InputError(f"standard input cannot be read: {error.strerror or error}") from None
