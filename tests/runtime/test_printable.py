"""Texts that are printed: every control character of Unicode is escaped, everything else stays."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from triform.runtime.printable import for_terminal, one_line, quoted, shortened

CONTROLS = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cc"]


def test_a_terminal_gets_no_control_character():
    """There are 65; line feeds and tabs are text."""
    assert len(CONTROLS) == 65
    for letter in CONTROLS:
        expected = letter if letter in "\n\t" else f"\\x{ord(letter):02x}".replace("\\x0d", "\\r")
        assert for_terminal(f"a{letter}b") == f"a{expected}b"


def test_one_line_has_no_control_character():
    for letter in CONTROLS:
        line = one_line(f"a{letter}b")
        assert not set(line) & set(CONTROLS) and line.startswith("a") and line.endswith("b")
        # Those that end a line become a space.
        assert line == ("a b" if len(f"a{letter}b".splitlines()) == 2 else f"a{ascii(letter)[1:-1]}b")


@pytest.mark.parametrize("letter", [" ", "~", "\xa0", "\xa1", "\u3000", "é", "日", "🙂"])
def test_spaces_and_letters_stay(letter):
    assert one_line(f"a{letter}b") == for_terminal(f"a{letter}b") == f"a{letter}b"


@pytest.mark.parametrize(
    ("letter", "escaped"), [("\u202e", "\\u202e"), ("\u200b", "\\u200b"), ("\U000e0001", "\\U000e0001")]
)
def test_what_shows_nothing_is_escaped_in_a_line(letter, escaped):
    assert one_line(f"a{letter}b") == f"a{escaped}b"


def test_at_most_so_many_characters():
    assert [shortened("abcd", most) for most in (5, 4, 3, 1)] == ["abcd", "abcd", "ab…", "…"]
    assert shortened("") == "" and shortened("a" * 80) == "a" * 80 and shortened("a" * 81) == "a" * 79 + "…"
    # With its quotation marks.
    assert quoted("a" * 78) == "'" + "a" * 78 + "'" and quoted("a" * 79) == "'" + "a" * 78 + "…"
    assert quoted(None) == "None"
