"""Methods of Python's strings and lists: which values have them, and how wide a template may ask for."""

from __future__ import annotations

import pytest

from triform.runtime.decoder.templates.functions import Refusal
from triform.runtime.decoder.templates.methods import METHODS, call_method, check_width


class Marked(str):
    """A text with methods of its own, as jinja2's Markup has them."""

    def zfill(self, width):
        raise AssertionError("not Python's own")


@pytest.mark.parametrize(
    ("value", "name", "arguments", "expected"),
    [
        ("7", "zfill", (3,), "007"), ("a-b-c", "rsplit", ("-", 1), ["a-b", "c"]), ([1, 2, 1], "count", (1,), 2),
        ((1, 2), "index", (2,), 1), ([1, [2]], "copy", (), [1, [2]]), ({"a": 1}, "copy", (), {"a": 1}),
        (8, "bit_length", (), 4), (True, "bit_length", (), 1), (Marked("7"), "zfill", (2,), "07"),
        ("ß", "casefold", (), "ss"),
    ],
)  # fmt: skip
def test_they_are_pythons(value, name, arguments, expected):
    assert call_method(value, name, *arguments) == expected


def test_names_of_arguments():
    assert call_method("a b c", "rsplit", maxsplit=1) == ["a b", "c"]


@pytest.mark.parametrize(
    ("value", "name", "kind"),
    [
        ((1, 2), "copy", "tuple"), ("a", "copy", "str"), ([1], "zfill", "list"), ({"a": 1}, "count", "dict"),
        (1.5, "bit_length", "float"), (None, "copy", "NoneType"), ("a", "__class__", "str"), ("a", "format", "str"),
        (1, "count", "int"),
    ],
)  # fmt: skip
def test_what_has_no_such_method(value, name, kind):
    with pytest.raises(Refusal, match=f"^{kind} has no method {name}$"):
        call_method(value, name)


def test_only_methods_that_change_nothing():
    assert {"append", "pop", "update", "format", "format_map", "join", "encode", "__class__"} & METHODS == set()
    assert {"rsplit", "zfill", "index", "copy", "bit_length", "title"} <= METHODS


def test_the_largest_width():
    assert len(call_method("a", "ljust", 1_000_000)) == 1_000_000
    for width in (1_000_001, -1_000_001):
        with pytest.raises(Refusal, match=f"^a width of {width} is too large$"):
            call_method("a", "ljust", width)
        with pytest.raises(Refusal, match="too large"):
            call_method("a", "expandtabs", tabsize=width)
    for value in (1_000_000, -1_000_000, 1e300, "9" * 10, None):
        check_width(value)
