"""Methods of Python's strings and lists that minijinja lacks or has otherwise, for templates that call them."""

from __future__ import annotations

from typing import Any

from triform.runtime.decoder.templates.functions import Refusal

# None of them changes its object, runs code, or reads anything but its arguments.
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
# Calls of these go through `call_method`.
METHODS = frozenset().union(*_METHODS.values())
# Beyond the width of any text that a prompt is made of; a larger one would only fill the memory.
_WIDEST = 1_000_000


def call_method(value: Any, name: str, *arguments: Any, **named: Any) -> Any:
    """Call a method as Python does.

    Args:
        value: whose method it is.
        name: of the method.
        arguments: of the call.
        named: of the call.

    Raises:
        Refusal: there is no such method, or a width is out of proportion.
    """
    kind = next((kind for kind in _METHODS if isinstance(value, kind)), None)
    if kind is None or name not in _METHODS[kind]:
        raise Refusal(f"{type(value).__name__} has no method {name}")
    for argument in (*arguments, *named.values()):
        check_width(argument)
    plain = str(value) if kind is str else value
    return getattr(plain, name)(*arguments, **named)


def check_width(value: Any) -> None:
    """Refuse numbers that would make a text of any size.

    Raises:
        Refusal: it is such a number.
    """
    if isinstance(value, int) and abs(value) > _WIDEST:
        raise Refusal(f"a width of {value} is too large")
