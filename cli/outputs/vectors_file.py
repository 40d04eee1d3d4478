"""Writes vectors as JSON lines or as bare numbers, to a file that a later run can continue or to standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from triform.cli.outputs.answers_file import answers_file
from triform.cli.outputs.part_file import part_file
from triform.runtime.errors import InputError
from triform.runtime.files import npy_header, row_size

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record
    from triform.runtime.arithmetic import Array


@dataclass(frozen=True)
class VectorsFile:
    """Where vectors go.

    Attributes:
        done: number of vectors from an earlier run.
        check_last: called with the record of the last of them; raises InputError if it belongs to another.
        write: called with each further record and its vector, (dimension,).
    """

    done: int
    check_last: Callable[[Record], None]
    write: Callable[[Record, Array], None]


@contextmanager
def lines_of_vectors(kind: str, output: Path | None, *, source: Path | None, resume: bool) -> Iterator[VectorsFile]:
    """Open the output for one JSON object per vector.

    Args:
        kind: the key of an input that is not a JSON object: text or image.
        output: the file; standard output when None.
        source: the file that the inputs come from.
        resume: continue after the lines of an earlier run.

    Raises:
        InputError: see `answers_file`.
    """

    def fields(record: Record) -> dict[str, Any]:
        value = record.value or {kind: record.text}
        return {key: item for key, item in value.items() if key != "embedding"}

    with answers_file(output, source=source, resume=resume) as file:
        yield VectorsFile(
            file.done,
            lambda record: file.check_question(fields(record)),
            lambda record, vector: file.write_line(_line(fields(record), vector)),
        )


def _line(fields: dict[str, Any], vector: Array) -> str:
    start = json.dumps(fields)[1:-1]
    # Enough digits to restore every float32 exactly.
    numbers = ", ".join(["%.9g" if vector.dtype.kind == "f" else "%d"] * len(vector)) % tuple(vector.tolist())
    return f'{{{start}{", " if start else ""}"embedding": [{numbers}]}}'


@contextmanager
def rows_of_vectors(
    width: int, dtype: str, output: Path | None, *, npy: bool, source: Path | None, resume: bool
) -> Iterator[VectorsFile]:
    """Open the output for the numbers alone, row after row.

    Args:
        width: numbers in a row.
        dtype: of the numbers, by numpy's name.
        output: the file; standard output when None.
        npy: put the header of a .npy file in front.
        source: the file that the inputs come from.
        resume: continue after the rows of an earlier run.

    Raises:
        InputError: see `part_file`; or the rows of the earlier run are of another width or dtype, or there is no file
            to continue.
    """
    if output is None:
        if resume:
            raise InputError("--resume continues a file: name it with --output")
        yield VectorsFile(0, _accept, lambda _, vector: _write_row(sys.stdout.buffer, vector))
        return
    with part_file(output, source=source, resume=resume) as file:
        header, size = npy_header(0, width, dtype) if npy else b"", row_size(width, dtype)

        def write(record: Record, vector: Array) -> None:
            if file.tell() == 0:
                file.write(header)
            _write_row(file, vector)

        yield VectorsFile(_whole_rows(file, header, size), _accept, write)
        if npy:
            count = max(0, file.tell() - len(header)) // size
            file.seek(0)
            # numpy leaves room in a header for the largest number of rows, so that it never grows.
            file.write(npy_header(count, width, dtype))
            file.seek(0, os.SEEK_END)


def _accept(record: Record) -> None:
    """Numbers do not say which record they belong to."""


def _write_row(file: IO[bytes], vector: Array) -> None:
    file.write(vector.tobytes())


def _whole_rows(file: IO[bytes], header: bytes, size: int) -> int:
    """Remove an unfinished last row; return the number of rows."""
    start = file.read(len(header))
    if len(start) < len(header):
        file.seek(0)
        file.truncate()
        return 0
    if start != header:
        raise InputError(
            "the unfinished output has vectors of another size or --output-dtype; repeat the earlier command, "
            "or remove it"
        )
    count = (file.seek(0, os.SEEK_END) - len(header)) // size
    file.truncate(len(header) + count * size)
    file.seek(0, os.SEEK_END)
    return count
