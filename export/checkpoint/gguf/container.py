"""Reads the container format of GGUF: keys, values, and memory-mapped tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from triform.runtime.errors import ExportError
from triform.runtime.printable import quoted

_VERSIONS = (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
# By the number of a value's type in the file.
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", _BOOL: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_NUMBER, _COUNT = "split.no", "split.count"
_Entry = TypeVar("_Entry")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        name: its name in the file.
        format: how its numbers are stored.
        shape: outermost dimension first, as in PyTorch.
        data: uint8, mapped from the file; a row is a whole number of blocks.
    """

    name: str
    format: GGMLQuantizationType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class GgufFile:
    """A file, or all of its parts together.

    Attributes:
        path: of the file; of several parts, the one that the user named.
        values: the values by key.
        tensors: the tensors by name.
    """

    path: Path
    values: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def part(self) -> int:
        """The number of the part, from 0; also 0 for a file that is not split."""
        return int(self.values.get(_NUMBER, 0))

    @property
    def architecture(self) -> str:
        """The name of the architecture.

        Raises:
            ExportError: the file does not name it.
        """
        name = self.values.get("general.architecture")
        if not isinstance(name, str):
            raise ExportError(f"{self.path.name} does not name its architecture (general.architecture)")
        return name


def split_files(path: Path) -> list[Path]:
    """All files of a split model; `path` alone if its name does not end like -00001-of-00003.gguf.

    Raises:
        ExportError: a part is missing.
    """
    match = _PART.search(path.name)
    if match is None:
        return [path]
    count = int(match[2])
    parts = [
        path.with_name(f"{path.name[: match.start()]}-{number:05d}-of-{match[2]}.gguf")
        for number in range(1, count + 1)
    ]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ExportError(f"{path.name} is one of {count} parts, and {', '.join(missing)} is not beside it")
    return parts


def open_gguf(path: Path) -> GgufFile:
    """Read the keys of a file and map its tensors, with those of all its parts.

    Raises:
        ExportError: the file is damaged or incomplete, or a tensor has an unknown format.
    """
    parts = split_files(path)
    contents = sorted((_read(part) for part in parts), key=lambda content: content.part)
    values = contents[0].values
    tensors: dict[str, Tensor] = {}
    for content in contents:
        _check_belongs(content, contents[0], len(parts))
        if twice := sorted(tensors.keys() & content.tensors.keys()):
            raise ExportError(f"{content.path.name} holds {twice[0]}, which another part of {path.name} holds too")
        tensors |= content.tensors
    count = int(values.get(_COUNT, 0) or 1)
    if count > len(parts):
        raise ExportError(
            f"{path.name} is part {contents[0].part + 1} of {count} and not named like one "
            f"(…-00001-of-{count:05d}.gguf); merge the parts with llama-gguf-split --merge"
        )
    expected = values.get("split.tensors.count")
    if expected is not None and int(expected) != len(tensors):
        raise ExportError(f"the parts of {path.name} have {len(tensors)} tensors together, not {expected}")
    return GgufFile(path, values, tensors)


def _check_belongs(part: GgufFile, first: GgufFile, count: int) -> None:
    """Check that a part is one of as many as there are, and says nothing else of the model than the first one does.

    Raises:
        ExportError: it does, so that it is of another model.
    """
    said = int(part.values.get(_COUNT, 0) or count)
    if count > 1 and said != count:
        raise ExportError(f"{part.path.name} is one of {said} parts, and there are {count}; fetch the parts again")
    for key, value in part.values.items():
        if part is not first and key != _NUMBER and not np.array_equal(value, first.values.get(key, ())):
            raise ExportError(
                f"{part.path.name} has a {key} of its own, unlike {first.path.name}: they are not parts of one model; "
                "fetch the parts again"
            )


class _Cursor:
    """Reads numbers and strings one after the other."""

    def __init__(self, content: memoryview, name: str) -> None:
        self._content, self._name = content, name
        self.position = 0

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if size < 0 or end > len(self._content):
            raise ExportError(f"{self._name} ends in the middle of its header; is the download complete?")
        taken = self._content[self.position : end]
        self.position = end
        return taken

    def number(self, kind: str) -> Any:
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def text(self) -> str:
        # Vocabularies may have pieces that are not valid UTF-8, which llama.cpp keeps as bytes.
        return bytes(self.take(self.number("<Q"))).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in _SCALARS:
                scalars = np.frombuffer(self.take(count * np.dtype(_SCALARS[inner]).itemsize), _SCALARS[inner])
                return scalars.astype(bool) if inner == _BOOL else scalars
            return [self.value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise ExportError(f"{self._name} has a value of type {kind}, which is not one of GGUF's")
        number = np.frombuffer(self.take(np.dtype(_SCALARS[kind]).itemsize), _SCALARS[kind])[0].item()
        return bool(number) if kind == _BOOL else number


def _read(path: Path) -> GgufFile:
    try:
        mapped = np.memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    cursor = _Cursor(mapped.data, path.name)
    if bytes(cursor.take(4)) != b"GGUF":
        raise ExportError(f"{path.name} is not a GGUF file: it does not begin with the bytes GGUF")
    version = cursor.number("<I")
    if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
        raise ExportError(f"{path.name} was written for big-endian machines; give a file for little-endian ones")
    if version not in _VERSIONS:
        raise ExportError(
            f"{path.name} is GGUF version {version}; versions 2 and 3 of little-endian files are supported"
        )
    count, keys = cursor.number("<Q"), cursor.number("<Q")
    values = _by_name(path, "the key", ((cursor.text(), cursor.value(cursor.number("<I"))) for _ in range(keys)))
    infos = [_tensor_info(cursor, path) for _ in range(count)]
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or alignment.bit_count() != 1:
        raise ExportError(f"{path.name} has general.alignment = {quoted(alignment)}, which is no power of two")
    tensors = _mapped(infos, mapped, cursor.position, alignment, path)
    return GgufFile(path, values, _by_name(path, "the tensor", ((tensor.name, tensor) for tensor in tensors)))


def _by_name(path: Path, kind: str, entries: Iterable[tuple[str, _Entry]]) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for name, entry in entries:
        if name in found:
            raise ExportError(f"{path.name} has {kind} {quoted(name)} twice; fetch the file again")
        found[name] = entry
    return found


_Info = tuple[str, GGMLQuantizationType, tuple[int, ...], int]


def _tensor_info(cursor: _Cursor, path: Path) -> _Info:
    name, rank = cursor.text(), cursor.number("<I")
    shape = tuple(cursor.number("<Q") for _ in range(rank))[::-1]
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    try:
        return name, GGMLQuantizationType(kind), shape, offset
    except ValueError:
        raise ExportError(
            f"{path.name} stores {name} in format {kind}, which is not known here; a newer gguf package may know it"
        ) from None


def _mapped(
    infos: list[_Info], content: NDArray[np.uint8], header: int, alignment: int, path: Path
) -> Iterator[Tensor]:
    """The tensors, which follow each other, each from a multiple of the alignment on."""
    start, place = header + -header % alignment, 0
    for name, kind, shape, offset in infos:
        length, size = GGML_QUANT_SIZES[kind]
        if not shape or shape[-1] % length:
            raise ExportError(f"{path.name}: rows of {name} {list(shape)} are not whole blocks of {kind.name}")
        count = math.prod(shape) // length * size
        if offset != place:
            raise ExportError(f"{path.name} says that {name} is at {offset}, but the tensors before it end at {place}")
        place += count + -count % alignment
        if start + offset + count > len(content):
            raise ExportError(f"{path.name} ends before the tensor {name} does; is the download complete?")
        data = content[start + offset : start + offset + count]
        yield Tensor(name, kind, shape, data.reshape(*shape[:-1], shape[-1] // length * size))
