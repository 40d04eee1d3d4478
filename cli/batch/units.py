"""Units of input: rows of a file that are read together, and given out in blocks of a fixed number of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triform.cli.inputs.formats import Format, Layout, Parsed, parse
from triform.runtime.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

# The column of a JSON file's objects, each as a text: their fields may differ from row to row.
RECORD = "record"


@dataclass(frozen=True)
class Block:
    """Some rows of an input.

    Attributes:
        start: the number of the first row in its input, from 0.
        table: the rows.
        problems: for each row why it could not be read, or None.
    """

    start: int
    table: pa.Table
    problems: list[str | None]


@dataclass(frozen=True)
class ParquetUnit:
    """Consecutive row groups of a Parquet file, cut into blocks that are always the same.

    Attributes:
        place: the place of the file among all inputs, from 0.
        input_file: the file.
        start: the number of the first row in the file, from 0.
        groups: the row groups.
    """

    place: int
    input_file: Path
    start: int
    groups: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.input_file.stem

    def blocks(self, column: str, rows: int) -> Iterator[Block]:
        """The rows in blocks of `rows`; the last may be shorter.

        Raises:
            InputError: the file cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as parquet

        start = self.start
        # Not buffered as a whole: a row group may be larger than the memory.
        with reading(self.input_file), parquet.ParquetFile(self.input_file, pre_buffer=False) as file:
            batches = file.iter_batches(batch_size=rows, row_groups=list(self.groups))
            for table in _of_length((pa.Table.from_batches([batch]) for batch in batches), rows):
                yield Block(start, table, [None] * len(table))
                start += len(table)


def _of_length(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    import pyarrow as pa

    waiting: pa.Table | None = None
    for table in tables:
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        while len(waiting) >= rows:
            yield waiting.slice(0, rows)
            waiting = waiting.slice(rows)
    if waiting is not None and len(waiting):
        yield waiting


@dataclass(frozen=True)
class TextUnit:
    """A file of lines, JSON or a table. Blank lines are no rows, except in a file of plain lines.

    Attributes:
        place: see `ParquetUnit`.
        input_file: the file.
        format: of the file.
        columns: of a table.
    """

    place: int
    input_file: Path
    format: Format
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.input_file.stem

    def blocks(self, column: str, rows: int) -> Iterator[Block]:
        """See `ParquetUnit`."""
        with reading(self.input_file), self.input_file.open("rb") as file:
            parsed = rows_of(parse(file, Layout(self.format, column, (column,))))
            start = 0
            while some := list(islice(parsed, rows)):
                yield Block(start, self._table(some, column), [row.problem for row in some])
                start += len(some)

    def _table(self, some: list[Parsed], column: str) -> pa.Table:
        import pyarrow as pa

        records = [row.record for row in some]
        values = [{} if record is None else record.value or {} for record in records]
        columns: dict[str, list[str | None]] = {name: [_cell(value, name) for value in values] for name in self.columns}
        if self.format == "json":
            columns[RECORD] = [json.dumps(value) if value else None for value in values]
        columns[column] = [None if record is None else record.text for record in records]
        return pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})


def _cell(value: dict[str, Any], name: str) -> str | None:
    cell = value.get(name)
    # A cell of a table; bytes that are no text make their row a problem.
    return cell if isinstance(cell, str) else None


def rows_of(parsed: Iterable[Parsed]) -> Iterator[Parsed]:
    """Without blank lines."""
    return (row for row in parsed if row.record is not None or row.problem is not None)


@dataclass(frozen=True)
class RecordingsUnit:
    """Some recordings, each a row.

    Attributes:
        start: the number of the first among all recordings, from 0.
        files: the recordings.
    """

    start: int
    files: tuple[Path, ...]

    place = 0
    name = "recordings"
    input_file = None

    def blocks(self, column: str, rows: int) -> Iterator[Block]:
        """See `ParquetUnit`."""
        import pyarrow as pa

        for first in range(0, len(self.files), rows):
            files = self.files[first : first + rows]
            table = pa.table({column: pa.array(map(str, files), pa.string())})
            yield Block(self.start + first, table, [None] * len(files))


# Rows that one worker reads.
Unit = ParquetUnit | TextUnit | RecordingsUnit


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Put a file's name into what is wrong with it.

    Raises:
        InputError: the file cannot be read.
    """
    import pyarrow as pa

    try:
        with named(path):
            yield
    except (OSError, pa.ArrowException) as error:
        # Arrow's errors of a few lines repeat the file's name.
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read: {reason}") from None


@contextmanager
def named(path: Path | None) -> Iterator[None]:
    """Put the name of the input file, if it is one, before an InputError that lacks it."""
    try:
        yield
    except InputError as error:
        message = str(error)
        if path is None or message.startswith(str(path)):
            raise
        raise InputError(f"{path}: {message}") from None
