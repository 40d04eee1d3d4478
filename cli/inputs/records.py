"""Reads the texts to work on: from arguments, a file of lines, JSON or a table, or standard input."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from triform.cli.inputs.formats import Format, Layout, Record, file_format, parse
from triform.runtime.errors import InputError, refuse_unused

__all__ = ["Record", "Records"]

_Result = TypeVar("_Result")


@dataclass
class Records:
    """Reads records lazily, in bounded memory, in order.

    A record that cannot be used ends the reading. Its error is kept in `failure`, and `check` raises it once the
    records before it are finished. With `skip_errors` the record is counted instead.

    Attributes:
        texts: the arguments; a file or standard input is read where there are none.
        file: the file to read, or None; ``-`` is standard input.
        field: the field of a JSON object, or the column of a table, that holds the text.
        skip_errors: whether to skip records that cannot be used.
        fields: the fields to look for if `field` is None; the first that exists counts.
        blank_lines: whether blank lines are skipped and counted, or are records too.
        format: of the file; by its name and `field` if None.
        pages: see `Layout`.
        used: number of records so far that could be used.
        skipped: number of records skipped so far because they could not be used.
        first_skipped: the first of them and its problem.
        blanks: number of blank lines skipped so far.
        plain_json: the first line that is a JSON object but was read as plain text; None if there is none.
        failure: the error that ended the reading early.
    """

    texts: Sequence[str]
    file: Path | None
    field: str | None
    skip_errors: bool
    fields: Sequence[str] = ("text",)
    blank_lines: Literal["skip", "keep"] = "skip"
    format: Format | None = None
    pages: bool = False
    used: int = dataclasses.field(default=0, init=False)
    skipped: int = dataclasses.field(default=0, init=False)
    first_skipped: str = dataclasses.field(default="", init=False)
    blanks: int = dataclasses.field(default=0, init=False)
    plain_json: int | None = dataclasses.field(default=None, init=False)
    failure: InputError | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.texts and self.file is not None:
            raise InputError("give texts or --file, not both")
        refuse_unused("is for files, and the texts are arguments", field=bool(self.texts) and self.field is not None)
        if self.file is not None and str(self.file) != "-" and not self.file.is_file():
            raise InputError(f"{self.file} cannot be read: it is not a file")
        if not self.texts and self.file is None and sys.stdin.isatty():
            raise InputError("nothing to read: give texts as arguments, with --file, or on standard input")

    @property
    def is_json(self) -> bool:
        """Whether records are JSON objects or the rows of a table."""
        return not self.texts and self._format != "lines"

    @property
    def _format(self) -> Format:
        return self.format or file_format(self.file, self.field)

    def __iter__(self) -> Iterator[Record]:
        """The records, up to the first that cannot be used unless those are skipped.

        Raises:
            InputError: the file cannot be read at all.
        """
        if self.texts:
            yield from self._counted(Record(number, text) for number, text in enumerate(self.texts, 1))
        elif self.file is None or str(self.file) == "-":
            yield from self._counted(self._read(getattr(sys.stdin, "buffer", None) or _encoded(sys.stdin.read())))
        else:
            try:
                with self.file.open("rb") as opened:
                    yield from self._counted(self._read(opened))
            except OSError as error:
                raise InputError(f"{self.file} cannot be read: {error.strerror}") from None

    def place(self, number: int) -> str:
        """The name of a line in messages."""
        if self.texts:
            return f"argument {number}"
        return f"line {number}" + (f" of {self.file}" if self.file is not None else "")

    def use(self, records: Iterable[Record], work: Callable[[Record], _Result]) -> Iterator[tuple[Record, _Result]]:
        """Each record with its result of `work`; a record for which it raises an InputError cannot be used.

        Args:
            records: this object, or an iterator over its records.
            work: called with each record in order.
        """
        for record in records:
            try:
                result = work(record)
            except InputError as error:
                self.used -= 1
                if self._refuse(record.number, str(error)):
                    return
            else:
                yield record, result

    def check(self) -> None:
        """Raise the error that ended the reading early, if any; call it when all records are finished.

        Raises:
            InputError: a record could not be used; with `skip_errors`, none could.
        """
        if self.failure is not None:
            raise self.failure
        if self.skipped and not self.used:
            raise InputError(f"none of the {self.skipped} inputs can be used; the first is {self.first_skipped}")

    def _counted(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self.used += 1
            yield record

    def _read(self, stream: BinaryIO) -> Iterator[Record]:
        layout = Layout(self._format, self.field, self.fields, self.pages)
        for parsed in parse(stream, layout):
            if parsed.problem is not None:
                if self._refuse(parsed.number, parsed.problem):
                    return
                continue
            record = parsed.record
            if record is None or (self.blank_lines == "skip" and not record.text.strip() and record.messages is None):
                self.blanks += 1
                continue
            if parsed.is_plain_json and self.plain_json is None:
                self.plain_json = record.number
            yield record

    def _refuse(self, number: int, problem: str) -> bool:
        """Count a record that cannot be used, or keep its error; return whether the reading ends."""
        message = f"{self.place(number)}: {problem}"
        if self.skip_errors:
            self.skipped += 1
            self.first_skipped = self.first_skipped or message
            return False
        self.failure = InputError(f"{message}; --skip-errors goes on without it")
        return True


def _encoded(text: str) -> BinaryIO:
    from io import BytesIO

    return BytesIO(text.encode("utf-8", "surrogateescape"))
