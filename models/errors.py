"""The error of `models/`, which `export/` turns into an error for the user."""


class UnsupportedModelError(ValueError):
    """The architecture, or a setting of its config, cannot be exported."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that is not blank, without its full stop; else its type's name."""
    # A KeyError's message is the bare key.
    text = repr(error) if isinstance(error, KeyError) else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__).rstrip(".")
