"""Unpacks weights of 3, 5 or 6 bits, which ONNX Runtime has no operator for, to the 4 or 8 bits that operators read.

Beside a graph `decoder.onnx` a file `decoder.onnx.packed` may say which of its constants are packed. It is JSON: by the
constant's name its `shape`, whose numbers are bytes, the `file` beside the graph that has its packed bytes, their
`offset`, and its `fields`, a list of pairs [width, place].

Of each byte of the constant a field holds the bits from `place` to `place + width - 1`; bits in no field are zero. The
fields follow each other in the file. For a field of `width` bits the constant is cut into 8 / width equal parts, and
each packed byte holds a number of every part, that of the first part in the lowest bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.checked_json import Mismatch, build
from triform.runtime.errors import BundleError
from triform.runtime.machine.processor import physical_cores

_Bytes = NDArray[np.uint8]
_BYTE = 8
# Bytes of a constant: more than any model has, so that sizes cannot be made to overflow.
_MOST = 2**40


@dataclass(frozen=True)
class PackedConstant:
    """Where a constant's packed bytes are; see above."""

    file: str
    shape: list[int]
    offset: int
    fields: list[list[int]]

    @property
    def size(self) -> int:
        """Bytes of the constant."""
        return math.prod(self.shape)

    @property
    def key(self) -> tuple[str, int, int, str]:
        """The same for constants that are unpacked to the same bytes."""
        return self.file, self.offset, self.size, str(self.fields)

    @property
    def packed_size(self) -> int:
        """Bytes in the file."""
        return sum(self.size * width // 8 for width, _ in self.fields)


def packed_list(graph: Path) -> Path:
    """The file beside a graph that says which constants are packed."""
    return graph.with_name(f"{graph.name}.packed")


def unpacked_weights(graph: Path) -> dict[str, _Bytes]:
    """The packed constants of a graph by name, uint8; none if it has no packed ones.

    Constants that share their packed bytes share their memory.

    Args:
        graph: the .onnx file.

    Raises:
        BundleError: the list of packed constants does not fit the data, or cannot be read.
    """
    path = packed_list(graph)
    if not path.exists():
        return {}
    # Few graphs need it, and it imports the package logging.
    from concurrent.futures import ThreadPoolExecutor

    try:
        constants = _read(path)
        data = {name: np.memmap(graph.with_name(name), np.uint8, mode="r") for name in _files(constants)}
        different = {item.key: item for item in constants.values()}
        with ThreadPoolExecutor(physical_cores()) as pool:
            done = dict(zip(different, pool.map(lambda item: _unpacked(data, item), different.values()), strict=True))
        # An array cannot have every shape that has as many numbers.
        return {name: done[item.key].reshape(item.shape) for name, item in constants.items()}
    except (OSError, ValueError, RecursionError, Mismatch) as error:
        raise BundleError(f"{path} or what it names cannot be read: copy the bundle again ({error})") from None


def _files(constants: Mapping[str, PackedConstant]) -> set[str]:
    return {item.file for item in constants.values()}


def _unpacked(data: Mapping[str, _Bytes], item: PackedConstant) -> _Bytes:
    packed = data[item.file][item.offset : item.offset + item.packed_size]
    if len(packed) < item.packed_size:
        raise ValueError(f"{item.file} is too short")
    return unpack(packed, item.fields, item.size)


def unpack(packed: _Bytes, fields: Sequence[Sequence[int]], size: int) -> _Bytes:
    """The bytes of one constant, uint8 (size,).

    Args:
        packed: begins with the constant's packed bytes.
        fields: see above.
        size: of the constant, a multiple of 8.
    """
    result = np.empty(size, np.uint8)
    start = 0
    for index, (width, place) in enumerate(fields):
        count = size * width // 8
        field, start = packed[start : start + count], start + count
        mask = np.uint8((2**width - 1) << place)
        for part in range(8 // width):
            target = result[part * count : (part + 1) * count]
            moved = _moved(field, place - part * width)
            if index:
                moved &= mask
                target |= moved
            else:
                np.bitwise_and(moved, mask, out=target)
    return result


def _moved(field: _Bytes, places: int) -> _Bytes:
    """Shifted to higher places, or to lower ones where `places` is below 0; a new array."""
    return np.left_shift(field, np.uint8(places)) if places >= 0 else np.right_shift(field, np.uint8(-places))


def add_unpacked(ort: Any, settings: Any, weights: Mapping[str, _Bytes]) -> None:
    """Give a session that is to be opened with these settings the unpacked constants.

    They must live until it is open; it copies them (`OrtApi::AddExternalInitializers`).
    """
    if weights:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        settings.add_external_initializers(list(weights), values)


def _read(path: Path) -> dict[str, PackedConstant]:
    """Raises ValueError or Mismatch if the file is damaged."""
    constants: dict[str, PackedConstant] = build(dict[str, PackedConstant], json.loads(path.read_bytes()), "it")
    for name, item in constants.items():
        if (
            not item.fields
            or not all(map(_is_field, item.fields))
            or min([*item.shape, item.offset], default=0) < 0
            or item.size % _BYTE
            or item.size > _MOST
        ):
            raise ValueError(f"{name} has a wrong shape, offset or field")
        # No path out of the folder.
        if Path(item.file).name != item.file:
            raise ValueError(f"{name} is in {item.file}")
    return constants


def _is_field(pair: Sequence[int]) -> bool:
    return len(pair) == 2 and pair[0] in (1, 2, 4) and 0 <= pair[1] <= _BYTE - pair[0]
