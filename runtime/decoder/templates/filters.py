"""Jinja2's filters and tests that minijinja lacks or has otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from triform.runtime.decoder.templates.functions import Refusal
from triform.runtime.decoder.templates.methods import check_width

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"}
# Digits of a width; more are too large anyway.
_LONGEST_WIDTH = 9
# How much longer than it may be a text may be before it is truncated: Jinja2's setting.
_LEEWAY = 5


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """A value as plain JSON; Jinja's own filter escapes for HTML, and transformers replaces it."""
    check_width(indent)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _json(text: str, *arguments: Any, **named: Any) -> str:
    """JSON that minijinja wrote, which knows whole numbers from fractions, as transformers writes it."""
    return tojson(json.loads(str(text)), *arguments, **named)


def _exact(text: str, value: Any) -> str:
    """A number as Python writes it, given as minijinja does and by itself."""
    if isinstance(value, float) and "e" in repr(value):
        return repr(value)
    return str(text)


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    # minijinja's refuses what is no number, and Jinja2's gives the default.
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
    # What is not defined arrives as None, and has no length in minijinja.
    return 0 if value is None else len(value)


def _center(value: Any, width: int = 80) -> str:
    check_width(width)
    return _text(value).center(width)


def _escape(value: Any) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in _text(value))


def _widths(value: Any) -> Any:
    """What `format` is to be applied to, whose widths are in proportion."""
    text = _text(value)
    if "*" in text:
        raise Refusal("a width that is an argument is not supported")
    for width in re.findall(r"\d+", text):
        check_width(int(width[:_LONGEST_WIDTH]))
    return value


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    check_width(width)
    margin = width if isinstance(width, str) else " " * width
    # A line break at the end begins one more line, and an empty text has one.
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
    # What is not defined arrives as None too; in Jinja2 it is an empty sequence.
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
