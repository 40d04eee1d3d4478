"""Options whose value may be left out."""

from __future__ import annotations

import pytest

from triform.cli.arguments.optional_values import with_values


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export model bundle --quantize", "export model bundle --quantize auto"),
        ("export model bundle --quantize --force", "export model bundle --quantize auto --force"),
        ("export --quantize -- model bundle", "export --quantize auto -- model bundle"),
        ("export model bundle --quantize int8 --force", "export model bundle --quantize int8 --force"),
        ("export -- model --quantize", "export -- model --quantize"),
        ("generate bundle --quantize", "generate bundle --quantize"),
        ("export", "export"),
        ("", ""),
    ],
)
def test_a_value_that_is_left_out_is_filled_in(line, expected):
    assert with_values(line.split()) == expected.split()
