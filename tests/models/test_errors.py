"""What is quoted of other packages' errors."""

from __future__ import annotations

from triform.models.errors import first_line


def test_a_message_that_quotes_a_whole_file_is_cut():
    found = first_line(ValueError(f"unknown version '{'x' * 5000}'"))
    assert found.startswith("unknown version 'xxx")
    assert found.endswith("…")
    assert len(found) < 500


def test_a_line_that_ends_in_a_colon_takes_the_next():
    assert first_line(ValueError("\nCannot read:\n  the header.\n  More.")) == "Cannot read: the header"
