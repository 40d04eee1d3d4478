"""Splits a file into records: plain lines, JSON lines, a JSON list, or a table with named columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from triform.cli.inputs.pages import is_page, page_of
from triform.runtime.errors import InputError
from triform.runtime.text.checks import invalid_at
from triform.runtime.text.encoding import looks_like_utf_16, utf8_lines

if TYPE_CHECKING:
    from triform.runtime.text.pages import Page, Text

Format = Literal["lines", "json", "csv", "tsv"]

_SUFFIXES: dict[str, Format] = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
# The field of a conversation, for commands that take one.
_MESSAGES = "messages"
# The csv module's own limit is 128 kB a cell.
_LONGEST_CELL = 2**31 - 1


@dataclass(frozen=True)
class Record:
    """One input.

    Attributes:
        number: its line, or its place among the arguments or in a JSON list; the first is 1.
        text: the text; of an object, the value of its text field.
        value: the object it is part of; None for plain text.
        messages: of an object whose field is a conversation; the text is empty then.
        page: of an object with words and their boxes; the text is the words then.
    """

    number: int
    text: str
    value: dict[str, Any] | None = None
    messages: list[Any] | None = None
    page: Page | None = None

    @property
    def input(self) -> Text:
        """What a model reads: the page, or the text."""
        return self.text if self.page is None else self.page


@dataclass(frozen=True)
class Parsed:
    """The result of parsing a line.

    Attributes:
        number: the line.
        record: its record; None where the line is blank, or has a problem.
        problem: why it is no record.
        is_plain_json: whether it is a JSON object that was read as plain text.
        object: the JSON object without a text that can be used; None for anything else.
    """

    number: int
    record: Record | None = None
    problem: str | None = None
    is_plain_json: bool = False
    object: dict[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """Where to find the text of a record.

    Attributes:
        format: of the file.
        field: its name, if the user gave one.
        fields: the names to look for otherwise; the first that exists counts.
        pages: whether objects of words and boxes, without a text, are pages.
    """

    format: Format
    field: str | None
    fields: Sequence[str]
    pages: bool = False


def file_format(file: Path | None, field: str | None) -> Format:
    """The format by a file's name; if the name says nothing, a field means JSON.

    Args:
        file: None or ``-`` for standard input.
        field: the name of the field, if the user gave one.
    """
    named = None if file is None else _SUFFIXES.get(file.suffix.lower())
    return named or ("lines" if field is None else "json")


def parse(stream: BinaryIO, layout: Layout) -> Iterator[Parsed]:
    """Split a file into records.

    Lines are read as they are needed; only a JSON list is read whole.

    Args:
        stream: in any encoding that `utf8_lines` knows.
        layout: where to find the texts.

    Raises:
        InputError: a table lacks the column.
    """
    lines = _decoded(utf8_lines(stream))
    if layout.format == "lines":
        yield from map(_plain, lines)
    elif layout.format == "json":
        yield from _json(lines, layout)
    else:
        yield from _table(lines, layout)


# A line's number and its text, or what is wrong with it.
_Line = tuple[int, str, str | None]


def _decoded(lines: Iterable[bytes]) -> Iterator[_Line]:
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            yield number, "", "it is not UTF-8 text"
            continue
        if looks_like_utf_16(line):
            yield number, "", "it looks like UTF-16 without a byte-order mark, or is not text"
        else:
            yield number, text, None


def _plain(line: _Line) -> Parsed:
    number, text, problem = line
    if problem is not None:
        return Parsed(number, problem=problem)
    text = text.rstrip("\r\n")
    return Parsed(number, Record(number, text), is_plain_json=text.lstrip().startswith("{") and _is_object(text))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _json(lines: Iterator[_Line], layout: Layout) -> Iterator[Parsed]:
    """JSON objects line by line, or in one list over any number of lines."""
    first = next((line for line in lines if line[2] is not None or line[1].strip()), None)
    if first is None:
        return
    lines = chain((first,), lines)
    if first[2] is None and first[1].lstrip().startswith("["):
        yield from _json_list(lines, layout)
        return
    for number, text, problem in lines:
        if problem is not None:
            yield Parsed(number, problem=problem)
        elif not text.strip():
            yield Parsed(number)
        else:
            yield _json_line(number, text, layout)


def _json_line(number: int, text: str, layout: Layout) -> Parsed:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Parsed(number, problem="it is not JSON")
    return _of_object(number, value, layout)


def _json_list(lines: Iterable[_Line], layout: Layout) -> Iterator[Parsed]:
    texts = []
    for number, text, problem in lines:
        if problem is not None:
            yield Parsed(number, problem=problem)
            return
        texts.append(text)
    try:
        values = json.loads("".join(texts))
    except RecursionError:
        yield Parsed(1, problem="its JSON is nested too deeply")
        return
    except ValueError as error:
        # Python reads no whole number of more than 4,300 digits, and does not say where it is.
        at = error if isinstance(error, json.JSONDecodeError) else None
        reason = "a number in it has too many digits" if at is None else at.msg
        yield Parsed(1 if at is None else at.lineno, problem=f"it is not JSON ({reason})")
        return
    for place, value in enumerate(values, 1):
        yield Parsed(place, Record(place, value)) if _is_text(value) else _of_object(place, value, layout)


def _of_object(number: int, value: Any, layout: Layout) -> Parsed:
    fields = value if isinstance(value, dict) else {}
    name = layout.field or next((name for name in layout.fields if name in fields), layout.fields[0])
    content = fields.get(name)
    if name == _MESSAGES and name in layout.fields and isinstance(content, list):
        return Parsed(number, Record(number, "", fields, content))
    if layout.pages and layout.field is None and name not in fields and is_page(fields):
        return _of_page(number, fields)
    if not isinstance(content, str):
        problem = f"it is not an object with a text called {name!r}"
        return Parsed(number, problem=problem, object=value if isinstance(value, dict) else None)
    if not _is_text(content):
        return Parsed(number, problem=f"its {name!r} is not valid Unicode", object=fields)
    return Parsed(number, Record(number, content, fields))


def _of_page(number: int, fields: dict[str, Any]) -> Parsed:
    try:
        page = page_of(fields)
    except InputError as error:
        return Parsed(number, problem=str(error), object=fields)
    if not _is_text(page.text):
        return Parsed(number, problem="its words are not valid Unicode", object=fields)
    return Parsed(number, Record(number, page.text, fields, page=page))


def _is_text(value: Any) -> bool:
    # JSON can write half of a surrogate pair.
    return isinstance(value, str) and invalid_at(value) is None


def _table(lines: Iterator[_Line], layout: Layout) -> Iterator[Parsed]:
    """The rows of a table whose first line names its columns (RFC 4180); cells may hold line breaks."""
    csv.field_size_limit(_LONGEST_CELL)
    problems: list[tuple[int, str]] = []

    def texts() -> Iterator[str]:
        for number, text, problem in lines:
            if problem is not None:
                problems.append((number, problem))
            yield text

    reader = csv.reader(texts(), delimiter=_DELIMITERS[layout.format], strict=True)
    columns: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield Parsed(start, problem=f"it is not a row of a table ({error})")
            continue
        if problems:
            yield Parsed(problems[0][0], problem=problems[0][1])
            problems.clear()
        elif row is None:
            return
        elif row and columns is None:
            columns = _columns(row, layout)
        else:
            yield _row(start, row, columns or [], layout)


def _row(number: int, row: list[str], columns: list[str], layout: Layout) -> Parsed:
    if not row:
        return Parsed(number)
    if len(row) != len(columns):
        return Parsed(number, problem=f"it has {len(row)} cells, and the table {len(columns)} columns")
    return _of_object(number, dict(zip(columns, row, strict=True)), layout)


def _columns(row: list[str], layout: Layout) -> list[str]:
    """The columns' names.

    Raises:
        InputError: two columns have the same name, or the field is not among them.
    """
    if len(set(row)) < len(row):
        raise InputError(f"two columns of the table have the same name: {', '.join(row)}")
    fields = (layout.field,) if layout.field is not None else layout.fields
    if not set(fields) & set(row):
        problem = f"no column is called {layout.field!r}" if layout.field is not None else "--field must name a column"
        raise InputError(f"{problem}; the table has {', '.join(row)}")
    return row
