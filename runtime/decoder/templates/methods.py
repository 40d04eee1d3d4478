"""Methods of Python's strings and lists that minijinja lacks or implements differently."""

from __future__ import annotations

from typing import Any

from triform.runtime.decoder.templates.functions import Refusal

# None of these changes its object, runs code, or reads anything but its arguments.
_STRING = frozenset(
    (
        "casefold", "center", "count", "endswith", "expandtabs", "find", "index", "isdecimal", "isidentifier",
        "isprintable", "istitle", "ljust", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
        "rjust", "rpartition", "rsplit", "split", "startswith", "swapcase", "title", "translate", "zfill",
    )
)  # fmt: skip
_SEQUENCE = frozenset(("index", "count", "copy"))
_METHODS: dict[type, frozenset[str]] = {
    str: _STRING,
    list: _SEQUENCE,
    tuple: _SEQUENCE - {"copy"},
    dict: frozenset(("copy",)),
    int: frozenset(("bit_length",)),
}
# The names whose calls `rewritten` turns into calls of `call_method`.
METHODS = frozenset().union(*_METHODS.values())
# The largest width or count; no prompt needs more, and a larger one would fill the memory.
_WIDEST = 1_000_000


def call_method(value: Any, name: str, *arguments: Any, **named: Any) -> Any:
    """Call a method of a value as Python does.

    Args:
        value: a str, list, tuple, dict or int.
        name: the method's name.
        arguments: its positional arguments.
        named: its keyword arguments.

    Raises:
        Refusal: there is no such method, or a width is too large.
    """
    kind = next((kind for kind in _METHODS if isinstance(value, kind)), None)
    if kind is None or name not in _METHODS[kind]:
        raise Refusal(f"{type(value).__name__} has no method {name}")
    for argument in (*arguments, *named.values()):
        check_width(argument)
    plain = str(value) if kind is str else value
    return getattr(plain, name)(*arguments, **named)


def check_width(value: Any) -> None:
    """Check a width, indent or count, so that a short template cannot make a huge text.

    Raises:
        Refusal: the value is an int and too large.
    """
    if isinstance(value, int) and abs(value) > _WIDEST:
        raise Refusal(f"a width of {value} is too large")
