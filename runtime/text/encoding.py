"""Decodes text files: UTF-8 with or without a byte-order mark, and UTF-16 and UTF-32 with one."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from io import BufferedReader, RawIOBase, TextIOWrapper
from typing import BinaryIO, TextIO

from triform.runtime.errors import InputError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_MARK = 4
# A line of invalid UTF-8, which stands for text that cannot be decoded.
_UNREADABLE = b"\xff"
# Latin text in UTF-16 has a zero in every other byte.
_TOO_MANY_ZEROS = 0.25


def decode_text(content: bytes, name: str) -> str:
    """The text of a file, with line feeds as line breaks.

    Args:
        content: all bytes of the file.
        name: describes the file in errors.

    Raises:
        InputError: it is not text in a known encoding.
    """
    encoding, start = _encoding(content[:_LONGEST_MARK])
    if encoding == "utf-8" and looks_like_utf_16(content):
        raise InputError(f"{name} looks like UTF-16 without a byte-order mark, or is not text; save it as UTF-8")
    try:
        text = content[start:].decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"{name} is not {encoding[:6].upper()} text; save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def looks_like_utf_16(content: bytes) -> bool:
    """Whether so many bytes are zero that decoding them as UTF-8 would be silently wrong."""
    return bool(content) and content.count(0) >= len(content) * _TOO_MANY_ZEROS


def utf8_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file in any of the encodings, as UTF-8 without a mark, with the line ends of the file.

    A line that cannot be decoded is yielded as invalid UTF-8, so that the caller can refuse or skip it.
    """
    joined, encoding = _without_mark(stream)
    if encoding == "utf-8":
        yield from joined
        return
    try:
        for line in TextIOWrapper(joined, encoding=encoding, errors="surrogatepass", newline="\n"):
            yield line.encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        yield _UNREADABLE


def open_text(stream: BinaryIO) -> TextIO:
    """A file in any of the encodings as text, with line feeds as line breaks.

    Reading raises UnicodeDecodeError where it is not text.
    """
    joined, encoding = _without_mark(stream)
    return TextIOWrapper(joined, encoding=encoding)


def _encoding(head: bytes) -> tuple[str, int]:
    """The encoding that a file's first bytes indicate, and the length of its mark."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


def _without_mark(stream: BinaryIO) -> tuple[BufferedReader, str]:
    head = b""
    # Byte by byte, so that a pipe's first short line does not wait for the next.
    while len(head) < _LONGEST_MARK and any(mark.startswith(head) for mark, _ in _MARKS):
        byte = stream.read(1)
        if not byte:
            break
        head += byte
    encoding, start = _encoding(head)
    return BufferedReader(_Joined(head[start:], stream)), encoding


class _Joined(RawIOBase):
    """Bytes that were already read, then the rest of their stream, which stays open."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._head:
            chunk, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            # From a pipe, take what is available instead of waiting until the buffer is full.
            read = getattr(self._stream, "read1", self._stream.read)
            chunk = read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
