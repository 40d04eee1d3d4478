"""Writes files and folders that get their name only when complete, and arrays row by row in constant memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from triform.runtime.errors import InputError
from triform.runtime.unfinished import unfinished


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write and read; it gets its name, and replaces an existing file, when the context ends well.

    Raises:
        InputError: the file cannot be written.
        OSError: the disk is full.
    """
    target = followed(path)
    if target.exists() and not target.is_file():
        raise InputError(f"{path} cannot be written: it is not a file")
    with _beside(target, Path.touch, f"{path} cannot be written") as unnamed:
        try:
            with unnamed.open("w+b") as file:
                yield file
            os.replace(unnamed, target)
        except OSError as error:
            if error.filename is None:
                # The error for a full disk does not name the file.
                error.filename = str(path)
            raise


def check_writable(path: Path) -> None:
    """Check that a file can be written, before its content is computed.

    Raises:
        InputError: it cannot be written.
    """
    target = followed(path)
    if target.exists() and not target.is_file():
        raise InputError(f"{path} cannot be written: it is not a file")
    with _beside(target, Path.touch, f"{path} cannot be written"):
        return


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Make a folder to write into; it gets the name `path` when the context ends without an error.

    Raises:
        InputError: `path` exists, or the folder cannot be made.
        OSError: the disk is full.
    """
    target = followed(path)
    if target.exists():
        raise InputError(f"{path} exists already")
    with _beside(target, Path.mkdir, f"{path} cannot be made") as unnamed:
        try:
            yield unnamed
            _take_name(unnamed, target, path)
        except OSError as error:
            if error.filename is None:
                error.filename = str(path)
            raise


def followed(path: Path) -> Path:
    """The path after its links. Unlike `Path.resolve`, it raises no error for links in a circle."""
    return Path(os.path.realpath(path))


@contextmanager
def _beside(target: Path, make: Callable[[Path], None], problem: str) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            unnamed = stack.enter_context(unfinished(target, make))
        except OSError as error:
            raise InputError(f"{problem}: {error.strerror}") from None
        yield unnamed


def _take_name(unnamed: Path, target: Path, path: Path) -> None:
    try:
        os.replace(unnamed, target)
    except OSError:
        if target.exists():
            raise InputError(f"{path} was made by another process meanwhile; try again to use it") from None
        raise


def write_npy(file: BinaryIO, rows: Iterable[NDArray[Any]], width: int, dtype: str) -> int:
    """Write a .npy file of shape (rows, width), whose number of rows is known only at the end.

    Args:
        file: open for writing, empty, and seekable.
        rows: (width,), all of dtype `dtype`.
        width: length of a row.
        dtype: dtype of the rows, by numpy's name.

    Returns:
        the number of rows.
    """
    file.write(npy_header(0, width, dtype))
    count = 0
    for row in rows:
        file.write(row.tobytes())
        count += 1
    file.seek(0)
    # numpy leaves room in a header for the largest number of rows, so that it never grows.
    file.write(npy_header(count, width, dtype))
    file.seek(0, os.SEEK_END)
    return count


def row_size(width: int, dtype: str) -> int:
    """The size in bytes of a row of `width` numbers; `dtype` is numpy's name."""
    return width * np.dtype(dtype).itemsize


def npy_header(count: int, width: int, dtype: str) -> bytes:
    """The header of a .npy file of shape (count, width); its length does not depend on `count`."""
    header = io.BytesIO()
    description = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (count, width)}
    npy.write_array_header_1_0(header, description)
    return header.getvalue()
