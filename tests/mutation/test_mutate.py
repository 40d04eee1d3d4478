"""Which small changes are made of a file, each written out by hand."""

from __future__ import annotations

import pytest

from tests.mutation.mutate import mutations


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("a < b", ["(a <= b)"]),
        ("a + b", ["(a - b)"]),
        ("-a", ["(a)"]),
        ("f(strict=True)", ["f(strict=(False))"]),
        # Lengths are equal wherever the code is right.
        ("zip(a, b, strict=True)", []),
        ("zip(a, b, strict=False)", ["zip(a, b, strict=(True))"]),
        ("zip(a, b[1:], strict=True)", ["zip(a, b[(2):], strict=True)"]),
        ("'a' + b", []),
        ("x: Literal[1] = 2", ["x: Literal[1] = (3)"]),
    ],
)
def test_changes_of_a_line(line, changed):
    assert [mutation.text for mutation in mutations(f"ä = ''\n{line}\n")] == [f"ä = ''\n{text}\n" for text in changed]
