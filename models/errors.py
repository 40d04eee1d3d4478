"""The error of `models/`, which `export/` turns into an error for the user."""

_LONGEST = 400


class UnsupportedModelError(ValueError):
    """The architecture, or a setting of its config, cannot be exported."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that is not blank, without its full stop; else its type's name.

    Where that line ends in a colon, the next one is part of it. A long one, which may quote a whole file, is cut.
    """
    # A KeyError's message is the bare key.
    text = repr(error) if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1]).rstrip(".:")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
