"""Orders of rows that differ between llama.cpp's files and transformers: written out by hand."""

from __future__ import annotations

import pytest

from triform.export.checkpoint.gguf.row_orders import grouped_rows, order_of, turned_rows

# Two heads of keys of one number each, four of values of three numbers each.
HEADS = {"key heads": 2, "value heads": 4, "key": 1, "value": 3}
VALUES = [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]


def test_rotated_rows():
    """A head of four has its two halves interleaved in a file."""
    assert turned_rows(10, 8, 4).tolist() == [10, 12, 11, 13, 14, 16, 15, 17]
    # Rows that are no whole heads, and heads that are not rotated, stay.
    assert turned_rows(3, 6, 4).tolist() == [3, 4, 5, 6, 7, 8]
    assert turned_rows(3, 4, 0).tolist() == [3, 4, 5, 6]


def test_groups():
    """Four heads of queries of two numbers, two of keys, two of values: 8, 4 and 4 rows."""
    heads = {"q": 8, "k": 4, "head": 2}
    assert grouped_rows(16, heads).tolist() == [0, 1, 2, 3, 8, 9, 12, 13, 4, 5, 6, 7, 10, 11, 14, 15]
    assert grouped_rows(15, heads) is None and grouped_rows(17, heads) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("values", VALUES),
        ("heads of values", [0, 2, 1, 3]),
        ("keys and values", [0, 1, 2, 3, *(4 + row for row in VALUES)]),
        ("keys, values and gates", [0, 2, *range(4, 10), *range(16, 22), 1, 3, *range(10, 16), *range(22, 28)]),
    ],
)
def test_a_gated_delta_rule(name, expected):
    assert order_of(name, len(expected), HEADS).tolist() == expected
    assert order_of(name, len(expected) + 1, HEADS) is None
