"""One text, all of it: from an argument, a file or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from triform.runtime.errors import InputError


def whole_text(what: str, text: str | None, file: Path | None = None) -> str:
    """The text that was given; standard input when none was, or ``-``.

    Args:
        what: it is, for errors.
        text: the argument, if any.
        file: to read instead, if any.

    Raises:
        InputError: both were given, nothing can be read, or it is not UTF-8.
    """
    if text is not None and file is not None:
        raise InputError(f"give the {what} or --file, not both")
    if text is not None and text != "-":
        return text
    if text is None and file is None and sys.stdin.isatty():
        raise InputError(f"there is no {what}: give one, or write it to standard input")
    try:
        return sys.stdin.read() if file is None or str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file or 'standard input'} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the {what} in {file or 'standard input'} is not UTF-8 text") from None
