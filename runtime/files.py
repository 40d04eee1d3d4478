"""Writes files and folders that appear whole or not at all, and arrays row by row in constant memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from triform.runtime.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name, and the place of what had that name, when all went well.

    Raises:
        InputError: it cannot be written. A disk that fills up raises OSError.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise InputError(f"{path} cannot be written: it is not a file")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        file = unfinished.open("xb")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with file:
            yield file
        os.replace(unfinished, target)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            # A full disk, of which the system does not say what was being written.
            error.filename = str(path)
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Make a folder to write into that takes the name `path` when all went well.

    Raises:
        InputError: something of that name exists, or the folder cannot be made.
    """
    target = path.resolve()
    if target.exists():
        raise InputError(f"{path} exists already")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        unfinished.mkdir()
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}") from None
    try:
        yield unfinished
        _take_name(unfinished, target, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _take_name(unfinished: Path, target: Path, path: Path) -> None:
    try:
        os.replace(unfinished, target)
    except OSError:
        if target.exists():
            raise InputError(f"{path} was made by another process meanwhile; try again to use it") from None
        raise


def write_npy(file: BinaryIO, rows: Iterable[NDArray[Any]], width: int, dtype: str) -> int:
    """Write a .npy file of shape (rows, width), whose number of rows shows only at the end.

    Args:
        file: open, empty, and seekable.
        rows: of shape (width,), of one dtype.
        width: of a row.
        dtype: of the rows, by numpy's name.

    Returns:
        the number of rows.
    """
    _write_header(file, 0, width, dtype)
    count = write_raw(file, rows)
    file.seek(0)
    # numpy leaves room in a header for the largest number of rows, so that it never grows.
    _write_header(file, count, width, dtype)
    file.seek(0, os.SEEK_END)
    return count


def write_raw(file: BinaryIO, rows: Iterable[NDArray[Any]]) -> int:
    """Write the numbers alone, row after row, in the machine's byte order; return how many rows there were."""
    count = 0
    for row in rows:
        file.write(row.tobytes())
        count += 1
    return count


def _write_header(file: BinaryIO, count: int, width: int, dtype: str) -> None:
    description = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (count, width)}
    npy.write_array_header_1_0(file, description)
