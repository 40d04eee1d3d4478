"""Text files in every encoding that they come in."""

from __future__ import annotations

import codecs
import os
import threading
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triform.runtime.errors import InputError
from triform.runtime.text.encoding import decode_text, looks_like_utf_16, open_text, utf8_lines

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
TEXT = "zażółć gęślą jaźń\n\n日本 ś 🙂\nno line break at the end"


def encoded(text, encoding):
    return ENCODINGS[encoding] + text.encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", [TEXT, "", "a", "\n", TEXT + "\n", "é" * 100_000])
def test_every_encoding_gives_the_same(encoding, text):
    content = encoded(text, encoding)
    assert decode_text(content, "the prompt") == text
    assert b"".join(utf8_lines(BytesIO(content))) == text.encode()
    assert open_text(BytesIO(content)).read() == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")), st.sampled_from(sorted(ENCODINGS)))
def test_any_text(text, encoding):
    text = text.removeprefix("\ufeff")
    assert b"".join(utf8_lines(BytesIO(encoded(text, encoding)))) == text.encode()
    assert decode_text(encoded(text, encoding), "it") == text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_line_breaks_of_windows_and_old_macs(encoding):
    assert decode_text(encoded("a\r\nb\rc\n", encoding), "it") == "a\nb\nc\n"
    assert open_text(BytesIO(encoded("a\r\nb\n", encoding))).read() == "a\nb\n"
    # A line keeps its own end, for the reader to remove.
    assert list(utf8_lines(BytesIO(encoded("a\r\nb", encoding)))) == [b"a\r\n", b"b"]


@pytest.mark.parametrize("content", [b"\xe9t\xe9", b"\xff\xfea", b"\xff\xfe\x00\xd8a\x00", b"\xef\xbb\xbf\xff"])
def test_what_is_not_text_is_refused(content):
    with pytest.raises(InputError, match=r"the prompt in p\.txt is not UTF-(8|16) text; save it as UTF-8"):
        decode_text(content, "the prompt in p.txt")


def test_utf_16_without_a_mark_is_not_taken_for_utf_8():
    with pytest.raises(InputError, match="UTF-16 without a byte-order mark"):
        decode_text("Why is the sky blue?".encode("utf-16-le"), "the prompt")


def test_a_bad_line_is_bad_alone():
    content = b"\xff\xfe" + "a\n".encode("utf-16-le") + b"\x00\xd8\n\x00" + "b\n".encode("utf-16-le")
    first, second, third = utf8_lines(BytesIO(content))
    assert (first, third) == (b"a\n", b"b\n")
    with pytest.raises(UnicodeDecodeError):
        second.decode("utf-8")


def test_a_pipe_is_read_as_it_comes():
    """The first short line is there before the second is written."""
    receiving, sending = os.pipe()
    arrived = threading.Event()
    with open(receiving, "rb") as source, open(sending, "wb", buffering=0) as sink:
        lines = utf8_lines(source)
        sink.write(b"a\n")
        reader = threading.Thread(target=lambda: (next(lines), arrived.set()), daemon=True)
        reader.start()
        assert arrived.wait(10)


@pytest.mark.parametrize("mark", [b"", *ENCODINGS.values(), codecs.BOM_UTF8])
def test_no_more_is_read_than_tells_marks_apart(mark):
    """One byte behind a mark that could be longer, and none behind the longest, of four bytes."""
    stream = BytesIO(mark + b"a\0\0\0")
    open_text(stream)
    assert stream.tell() == min(len(mark) + 1, 4)


@pytest.mark.parametrize(
    ("content", "looks"),
    [(b"", False), (b"abc\0", True), (b"abcd\0", False), (b"a\0b\0", True), (b"\0", True), (b"abcd", False)],
)
def test_a_quarter_of_zeros_is_not_utf_8(content, looks):
    assert looks_like_utf_16(content) == looks
