"""Finds the input files, and divides them into units of work."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from triform.cli.batch.units import ParquetUnit, RecordingsUnit, TextUnit, Unit, reading, rows_of
from triform.cli.inputs.formats import Layout, Parsed, file_format, parse
from triform.runtime.batch.texts import check_column
from triform.runtime.errors import InputError, option

if TYPE_CHECKING:
    import pyarrow.parquet as parquet

_PARQUET = (".parquet", ".pq")
TABLES = (*_PARQUET, ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")


def find_files(patterns: Sequence[str], reads: Literal["text", "audio"], output: Path) -> list[Path]:
    """The files that patterns, folders and names stand for: each once, absolute, in the order of the patterns.

    Args:
        patterns: names of files and folders, and patterns.
        reads: what the task reads.
        output: the batch's own folder. What it holds is no input, or else a run could not be continued whose folder is
            inside of that of its inputs.

    Raises:
        InputError: nothing is there, or a file is of no known kind.
    """
    files: dict[Path, None] = {}
    results = output.resolve()
    for pattern in patterns:
        matched = sorted(path for path in _matches(pattern, reads) if results not in path.resolve().parents)
        if not matched:
            raise InputError(f"{option('inputs')} {pattern}: {_nothing_at(pattern, reads)}")
        files |= dict.fromkeys(path.absolute() for path in matched)
    unknown = [path for path in files if path.suffix.lower() not in TABLES]
    if unknown and (reads == "text" or len(unknown) < len(files)):
        known = ", ".join(TABLES)
        raise InputError(f"{unknown[0]} cannot be read as a table: its name ends in none of {known}")
    return list(files)


def _nothing_at(pattern: str, reads: Literal["text", "audio"]) -> str:
    if not Path(pattern).is_dir():
        return "there is no such file"
    audio = "no recordings and " if reads == "audio" else ""
    return f"this folder has {audio}no tables ({', '.join(TABLES)})"


def _matches(pattern: str, reads: Literal["text", "audio"]) -> Iterator[Path]:
    path = Path(pattern)
    if path.is_dir():
        # Without marks and logs of the tools that wrote a folder, and hidden files.
        for file in _files_in(path):
            if file.suffix.lower() in TABLES or (reads == "audio" and file.suffix != ""):
                yield file
    elif path.exists() or not glob.has_magic(pattern):
        yield from [path] if path.exists() else []
    else:
        yield from (Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())


def _files_in(folder: Path) -> Iterator[Path]:
    """The files in a folder and in its folders, however deep, in any order; links to folders are not followed."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith((".", "_")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file():
                        yield Path(entry.path)
        except PermissionError:
            # As a pattern of the shell, which does not see what lies there.
            continue


def plan(files: Sequence[Path], column: str, rows: int) -> list[Unit]:
    """The units of work, in order.

    Args:
        files: from `find_files`.
        column: that holds the texts, or the names of recordings.
        rows: rows of a block.

    Raises:
        InputError: a file cannot be read, or lacks the column.
    """
    if files[0].suffix.lower() not in TABLES:
        chunks = range(0, len(files), rows)
        return [RecordingsUnit(start, tuple(files[start : start + rows])) for start in chunks]
    units: list[Unit] = []
    for place, file in enumerate(files):
        if file.suffix.lower() in _PARQUET:
            units += _parquet_units(place, file, column, rows)
        else:
            units.append(_text_unit(place, file, column))
    return units


def _parquet_units(place: int, path: Path, column: str, rows: int) -> Iterator[ParquetUnit]:
    import pyarrow.parquet as parquet

    with reading(path), parquet.ParquetFile(path) as file:
        check_column(file.schema_arrow, column)
        return iter(list(_grouped(place, path, file.metadata, rows)))


def _grouped(place: int, path: Path, metadata: parquet.FileMetaData, rows: int) -> Iterator[ParquetUnit]:
    """Small row groups are put together until they fill a block."""
    groups: list[int] = []
    start = count = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        count += metadata.row_group(group).num_rows
        if count >= rows or group == metadata.num_row_groups - 1:
            if count:
                yield ParquetUnit(place, path, start, tuple(groups))
            start, count, groups = start + count, 0, []


def _text_unit(place: int, path: Path, column: str) -> TextUnit:
    kind = file_format(path, None)
    columns: tuple[str, ...] = ()
    with reading(path), path.open("rb") as file:
        rows = rows_of(parse(file, Layout(kind, column, (column,))))
        if kind in ("csv", "tsv"):
            first = next((row.record for row in rows if row.record), None)
            columns = () if first is None else tuple(first.value or ())
        elif kind == "json":
            _check_objects(rows, column)
        else:
            file.read(1)
    return TextUnit(place, path, kind, columns)


def _check_objects(rows: Iterator[Parsed], column: str) -> None:
    """Check that some row of a JSON file may have a text in the column; a file without rows passes.

    Of a file whose first row has its text no more is read.

    Raises:
        InputError: no row can have a text.
    """
    nearest: Parsed | None = None
    for row in rows:
        if row.record is not None or _holds_text(row, column):
            return
        if nearest is None or _nearness(row, column) > _nearness(nearest, column):
            nearest = row
    if nearest is not None:
        raise InputError(_without_text(nearest, column))


def _holds_text(row: Parsed, column: str) -> bool:
    # A row whose text is null is refused by itself.
    return row.object is not None and isinstance(row.object.get(column, 0), str | None)


def _nearness(row: Parsed, column: str) -> int:
    return 0 if row.object is None else 1 + (column in row.object)


def _without_text(row: Parsed, column: str) -> str:
    if row.object is None:
        return f"no row is a JSON object; line {row.number}: {row.problem}"
    if column not in row.object:
        return f"no column is called {column!r}; line {row.number} has: {', '.join(row.object)}"
    kinds = {bool: "true or false", list: "a list", dict: "an object"}
    kind = kinds.get(type(row.object[column]), "a number")
    return f"the column {column!r} holds no text; line {row.number} has {kind} there"
