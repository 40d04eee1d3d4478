"""Jinja2's filters and tests that minijinja lacks or implements differently."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from triform.runtime.decoder.templates.functions import Refusal
from triform.runtime.decoder.templates.methods import check_width

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"}
# The digits of a width that are read; a longer number is over the limit in any case.
_LONGEST_WIDTH = 9
# By how many characters a text may exceed the length before it is truncated: Jinja2's default.
_LEEWAY = 5


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Format a value as JSON. Like transformers, this replaces Jinja's own filter, which escapes the JSON for HTML.

    Raises:
        Refusal: the indent is too large.
    """
    check_width(indent)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _json(text: str, *arguments: Any, **named: Any) -> str:
    """Reformat JSON from minijinja's own filter, which distinguishes 2 from 2.0, as transformers formats it."""
    return tojson(json.loads(str(text)), *arguments, **named)


def _exact(text: str, value: Any) -> str:
    """A value as Python formats it, given minijinja's text of it and the value itself."""
    if isinstance(value, float) and "e" in repr(value):
        return repr(value)
    return str(text)


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    # Where a value is not a number, minijinja's filter fails and Jinja2's returns the default.
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default


def _float(value: Any, default: float = 0.0) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def _length(value: Any) -> int:
    # An undefined value arrives as None; in Jinja2 its length is 0.
    return 0 if value is None else len(value)


def _center(value: Any, width: int = 80) -> str:
    check_width(width)
    return _text(value).center(width)


def _escape(value: Any) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in _text(value))


def _widths(value: Any) -> Any:
    """Check the widths in a format string before `format` is applied to it; returns it unchanged."""
    text = _text(value)
    if "*" in text:
        raise Refusal("a * width in a format string is not supported")
    for width in re.findall(r"\d+", text):
        check_width(int(width[:_LONGEST_WIDTH]))
    return value


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    check_width(width)
    margin = width if isinstance(width, str) else " " * width
    # So that a trailing line break begins one more line, and an empty text has one line.
    lines = (_text(value) + "\n").splitlines()
    rest = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([margin + lines[0] if first else lines[0], *rest])


def _pprint(value: Any) -> str:
    from pprint import pformat

    return pformat(value)


def _random(values: Sequence[Any]) -> Any:
    from random import choice

    return choice(values) if values else None


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    return _text(value).replace(_text(old), _text(new), -1 if count is None else count)


def _truncate(
    value: str, length: int = 255, killwords: bool = False, end: str = "...", leeway: int | None = None
) -> str:
    if len(value) <= length + (_LEEWAY if leeway is None else leeway):
        return value
    cut = value[: length - len(end)]
    return (cut if killwords else cut.rsplit(" ", 1)[0]) + end


def _urlencode(value: Any) -> str:
    from urllib.parse import quote, quote_plus

    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        return quote(_text(value), safe="/")
    pairs = value.items() if isinstance(value, Mapping) else value
    return "&".join(f"{quote_plus(_text(key))}={quote_plus(_text(item))}" for key, item in pairs)


def _wordcount(value: Any) -> int:
    return len(re.findall(r"\w+", _text(value)))


def _wordwrap(
    value: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> str:
    from textwrap import TextWrapper

    wrapper = TextWrapper(
        width,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=break_long_words,
        break_on_hyphens=break_on_hyphens,
    )
    return ("\n" if wrapstring is None else wrapstring).join(
        line for text in value.splitlines() for line in wrapper.wrap(text) or [""]
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _is_iterable(value: Any, is_none: bool = True) -> bool:
    # An undefined value arrives as None, too; in Jinja2 it is an empty sequence.
    return not is_none if value is None else hasattr(value, "__iter__")


def _is_sequence(value: Any, is_none: bool = True) -> bool:
    return not is_none if value is None else isinstance(value, str | Mapping | Sequence)


def _is_callable(value: Any, is_none: bool = True) -> bool:
    return not is_none if value is None else callable(value)


FILTERS: dict[str, Callable[..., Any]] = {
    "_tojson": tojson, "_json": _json, "_exact": _exact, "int": _int, "float": _float, "length": _length,
    "count": _length, "_widths": _widths, "center": _center, "e": _escape, "escape": _escape, "forceescape": _escape,
    "indent": _indent, "pprint": _pprint, "random": _random, "replace": _replace, "truncate": _truncate,
    "urlencode": _urlencode, "wordcount": _wordcount, "wordwrap": _wordwrap,
}  # fmt: skip
TESTS: dict[str, Callable[..., bool]] = {"iterable": _is_iterable, "sequence": _is_sequence, "callable": _is_callable}
