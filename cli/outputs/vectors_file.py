"""Writes vectors as JSON lines or as bare numbers, to a file that a later run can continue or to standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from triform.cli.outputs.answers_file import answers_file
from triform.cli.outputs.part_file import part_file, part_path
from triform.cli.outputs.run_log import Run, run_log
from triform.runtime.errors import InputError
from triform.runtime.files import npy_header, row_size

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record
    from triform.runtime.arithmetic import Array

# A record, and the text or image of it that is embedded.
Input = tuple["Record", Any]


@dataclass(frozen=True)
class VectorsFile:
    """The output for vectors.

    Attributes:
        remaining: from the inputs to those whose vectors are not in the file; see `RunLog.remaining`.
        write: writes the vector of a record, (dimension,).
    """

    remaining: Callable[[Iterable[Input]], Iterator[Input]]
    write: Callable[[Record, Array], None]


@contextmanager
def lines_of_vectors(
    kind: str, output: Path | None, run: Run, *, source: Path | None, resume: bool
) -> Iterator[VectorsFile]:
    """Open the output for one JSON object per vector.

    Args:
        kind: the key of an input that is not a JSON object: text or image.
        output: the file; standard output when None.
        run: what the vectors depend on besides the inputs.
        source: the file that the inputs come from.
        resume: continue after the lines of an earlier run.

    Raises:
        InputError: see `answers_file`.
    """

    def fields(record: Record) -> dict[str, Any]:
        value = record.value or {kind: record.text}
        return {key: item for key, item in value.items() if key != "embedding"}

    with answers_file(output, run, source=source, resume=resume) as file:
        yield VectorsFile(
            lambda inputs: file.remaining(inputs, _record),
            lambda record, vector: file.write_line(record, _line(fields(record), vector)),
        )


def _line(fields: dict[str, Any], vector: Array) -> str:
    start = json.dumps(fields)[1:-1]
    # Enough digits to restore every float32 exactly.
    numbers = ", ".join(["%.9g" if vector.dtype.kind == "f" else "%d"] * len(vector)) % tuple(vector.tolist())
    return f'{{{start}{", " if start else ""}"embedding": [{numbers}]}}'


@contextmanager
def rows_of_vectors(
    width: int, dtype: str, output: Path | None, run: Run, *, npy: bool, source: Path | None, resume: bool
) -> Iterator[VectorsFile]:
    """Open the output for plain numbers, row after row.

    Args:
        width: number of dimensions.
        dtype: the dtype of the numbers, by numpy's name.
        output: the file; standard output when None.
        run: what the vectors depend on besides the inputs.
        npy: whether the file begins with the header of a .npy file.
        source: the file that the inputs come from.
        resume: continue after the rows of an earlier run.

    Raises:
        InputError: see `part_file` and `run_log`; or there is no file to continue.
    """
    if output is None:
        if resume:
            raise InputError("--resume continues a file: name it with --output")
        yield VectorsFile(iter, lambda _, vector: _write_row(sys.stdout.buffer, vector))
        return
    header, size = npy_header(0, width, dtype) if npy else b"", row_size(width, dtype)
    with (
        part_file(output, source=source, bundle=run.bundle, resume=resume) as file,
        run_log(run, part_path(output), lambda: _whole_rows(file, len(header), size)) as log,
    ):

        def write(record: Record, vector: Array) -> None:
            if file.tell() == 0:
                file.write(header)
            log.add(record, vector.tobytes())
            _write_row(file, vector)

        yield VectorsFile(lambda inputs: log.remaining(inputs, _record), write)
        if npy:
            count = max(0, file.tell() - len(header)) // size
            file.seek(0)
            # numpy leaves room in a header for the largest number of rows, so that it never grows.
            file.write(npy_header(count, width, dtype))
            file.seek(0, os.SEEK_END)


def _record(item: Input) -> Record:
    return item[0]


def _write_row(file: IO[bytes], vector: Array) -> None:
    file.write(vector.tobytes())


def _whole_rows(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    """Read all rows, and then remove an unfinished last one.

    Args:
        file: a header, then the rows.
        start: length of the header, in bytes.
        size: length of a row, in bytes.
    """
    file.seek(start)
    count = 0
    while len(row := file.read(size)) == size:
        yield row
        count += 1
    file.truncate(start + count * size if count else 0)
    file.seek(0, os.SEEK_END)
