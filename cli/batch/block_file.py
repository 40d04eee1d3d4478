"""The Parquet file of a block, which holds its own digest.

Parquet has checksums for the contents of pages, but none for their headers and the footer. So the footer holds, as
the text under a key of its own, the SHA-256 of the name of the block, the digests of its run, and all bytes of the
file, with zeros in place of the SHA-256 itself. Being in the file, it comes and goes with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from triform.runtime.errors import InputError
from triform.runtime.files import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = b"triform_block_sha256"
_DIGITS = 64
# The key's bytes, and those before a text of so many bytes in Thrift's compact protocol.
_MARK = _KEY + bytes([0x18, _DIGITS])
# The length of the footer, and Parquet's mark.
_END = 8
_PIECE = 2**20


def write_block(path: Path, table: pa.Table, run: Mapping[str, str]) -> None:
    """Write a block; the file gets its name when it is whole.

    Args:
        path: the file.
        table: the block.
        run: digests of everything that its results depend on, see `Run`.

    Raises:
        InputError: it cannot be written.
        OSError: the disk is full.
    """
    import pyarrow.parquet as parquet
    import pyarrow.types as types

    vectors = [field for field in table.schema if types.is_fixed_size_list(field.type)]
    # Dictionaries of numbers that hardly repeat take half as much again; bytes of one weight together compress better.
    repeating = [field.name for field in table.schema if not types.is_nested(field.type)] if vectors else True
    split = [f"{field.name}.list.element" for field in vectors if types.is_floating(field.type.value_type)]
    table = _without_digest(table)
    with whole_file(path) as file:
        with parquet.ParquetWriter(
            file,
            table.schema,
            compression="zstd",
            use_dictionary=repeating,
            use_byte_stream_split=split or False,
            write_page_checksum=True,
        ) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({_KEY: b"0" * _DIGITS})
        place = _place_of_digest(file)
        if place is None:
            raise AssertionError("the footer lacks the block's digest")
        digest = _digest(file, place, path.name, run)
        file.seek(place)
        file.write(digest)


def is_whole(path: Path, run: Mapping[str, str]) -> bool:
    """Whether a file is the block that `write_block` wrote under this name for this run, to the last byte.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            place = _place_of_digest(file)
            if place is None:
                return False
            file.seek(place)
            return file.read(_DIGITS) == _digest(file, place, path.name, run)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; delete it, and the same command computes its rows again"
        ) from None


def _without_digest(table: pa.Table) -> pa.Table:
    """Without the digest of the block that the table was read from: results may be the input of another run."""
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != _KEY}
    return table.replace_schema_metadata(metadata or None)


def _place_of_digest(file: BinaryIO) -> int | None:
    """Where in the file the digest is; None without one."""
    size = file.seek(0, os.SEEK_END)
    if size < _END:
        return None
    file.seek(size - _END)
    start = size - _END - int.from_bytes(file.read(_END)[:4], "little")
    if start < 0:
        return None
    file.seek(start)
    # What else a footer holds from the input stands before it.
    found = file.read().rfind(_MARK)
    return None if found < 0 else start + found + len(_MARK)


def _digest(file: BinaryIO, place: int, name: str, run: Mapping[str, str]) -> bytes:
    digest = hashlib.sha256(json.dumps([name, dict(run)], sort_keys=True).encode())
    size = file.seek(0, os.SEEK_END)
    for start, end in ((0, place), (place + _DIGITS, size)):
        file.seek(start)
        while start < end:
            piece = file.read(min(_PIECE, end - start))
            digest.update(piece)
            start += len(piece)
        if start == place:
            digest.update(b"0" * _DIGITS)
    return digest.hexdigest().encode()
