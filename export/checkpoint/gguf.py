"""Reading a GGUF file once instead of three times.

transformers parses the whole file for the config, for the tokenizer and for the weights, and builds the table of tensor
names anew for every module: 20 of the 25 seconds that loading a 135M model took. While the block runs, gguf's reader
and name table remember what they made.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf


@contextmanager
def reading_once() -> Iterator[None]:
    """Share one `GGUFReader` per file, and one name table per architecture, until the block ends."""
    reader, name_map = gguf.GGUFReader, gguf.get_tensor_name_map

    @functools.cache
    def read(path: str, mode: str) -> Any:
        return reader(path, mode)

    def shared_reader(path: str | Path, mode: str = "r") -> Any:
        return read(str(path), mode)

    gguf.GGUFReader = shared_reader
    gguf.get_tensor_name_map = functools.cache(name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, name_map
