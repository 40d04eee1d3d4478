"""Texts to work on, one after the other: from arguments, a file of lines, a JSONL file, or standard input."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from triform.runtime.errors import InputError
from triform.runtime.text.unicode_check import invalid_at

# The field of a conversation, where commands take one.
_MESSAGES = "messages"


@dataclass(frozen=True)
class Record:
    """One input.

    Attributes:
        number: its line, or its place among the arguments; the first is 1.
        text: the text; of a JSON object, the value of the field asked for.
        value: the JSON object it is part of; None for plain text.
        messages: of a JSON object whose field is a conversation; the text is empty then.
    """

    number: int
    text: str
    value: dict[str, Any] | None = None
    messages: list[Any] | None = None


@dataclass
class Records:
    """Reads records lazily, in bounded memory, in order.

    Attributes:
        fields: where in a JSON object to look for the text when no field is named; the first that is there.
        skipped: lines left out so far, because they could not be read.
    """

    texts: Sequence[str]
    file: Path | None
    field: str | None
    skip_errors: bool
    fields: Sequence[str] = ("text",)
    skipped: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.texts and self.file is not None:
            raise InputError("give texts or --file, not both")
        if self.file is not None and str(self.file) != "-" and not self.file.is_file():
            raise InputError(f"{self.file} cannot be read: it is not a file")
        if not self.texts and self.file is None and sys.stdin.isatty():
            raise InputError("nothing to read: give texts as arguments, with --file, or on standard input")

    @property
    def is_json(self) -> bool:
        """Whether each line is a JSON object."""
        return not self.texts and (self.field is not None or (self.file is not None and self.file.suffix == ".jsonl"))

    def __iter__(self) -> Iterator[Record]:
        """Every record.

        Raises:
            InputError: a line is not UTF-8, is not a JSON object, or lacks the field; not with `skip_errors`.
        """
        if self.texts:
            yield from (Record(number, text) for number, text in enumerate(self.texts, 1))
        elif self.file is None or str(self.file) == "-":
            yield from self._lines(getattr(sys.stdin, "buffer", None) or _encoded(sys.stdin))
        else:
            try:
                with self.file.open("rb") as opened:
                    yield from self._lines(opened)
            except OSError as error:
                raise InputError(f"{self.file} cannot be read: {error.strerror}") from None

    def place(self, number: int) -> str:
        """What to call a line in a message."""
        return f"line {number}" + (f" of {self.file}" if self.file is not None else "")

    def _lines(self, lines: BinaryIO | Iterable[bytes]) -> Iterator[Record]:
        for number, line in enumerate(lines, 1):
            try:
                record = self._record(number, line)
            except InputError:
                if not self.skip_errors:
                    raise
                self.skipped += 1
                continue
            if record is not None:
                yield record

    def _record(self, number: int, line: bytes) -> Record | None:
        where = self.place(number)
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError(f"{where} is not UTF-8 text; --skip-errors goes on without it") from None
        if not self.is_json:
            return Record(number, text)
        if not text.strip():
            return None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError(f"{where} is not JSON; --skip-errors goes on without it") from None
        return self._of_object(number, where, value)

    def _of_object(self, number: int, where: str, value: Any) -> Record:
        found = value if isinstance(value, dict) else {}
        name = self.field or next((one for one in self.fields if one in found), self.fields[0])
        content = found.get(name)
        if name == _MESSAGES and name in self.fields and isinstance(content, list):
            return Record(number, "", found, content)
        if not isinstance(content, str):
            raise InputError(f"{where} is not an object with a text called {name!r}; --skip-errors goes on without it")
        if invalid_at(content) is not None:
            raise InputError(f"{where} has a text that is not valid Unicode; --skip-errors goes on without it")
        return Record(number, content, found)


def _encoded(stream: Iterable[str]) -> Iterator[bytes]:
    for line in stream:
        yield line.encode("utf-8", "surrogateescape")
