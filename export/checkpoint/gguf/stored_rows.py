"""Matrices that stay in the blocks of a file, and are unpacked some rows at a time where somebody reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_map

from triform.export.checkpoint.gguf.blocks import can_decode, decode
from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.placement import Placement

_aten = torch.ops.aten
# Numbers to unpack at once: few enough to stay in the caches.
_AT_ONCE = 2**20


@dataclass(frozen=True)
class _Window:
    """A part of a matrix.

    Attributes:
        tensor: the whole matrix, of two dimensions.
        order: the rows of the part, int64, as they are numbered in the file.
        columns: of the part; it begins and ends between two numbers.
    """

    tensor: Tensor
    order: NDArray[np.int64]
    columns: range

    def values(self) -> torch.Tensor:
        """The numbers, float32 (rows, columns)."""
        result = torch.empty(len(self.order), len(self.columns))
        step = max(1, _AT_ONCE // self.tensor.shape[1])
        for start in range(0, len(self.order), step):
            result[start : start + step] = torch.from_numpy(self._read(self.order[start : start + step]))
        return result

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        tensor = self.tensor
        one_behind_another = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        data = tensor.data[rows[0] : rows[-1] + 1] if one_behind_another else tensor.data[rows]
        whole = decode(Tensor(tensor.name, tensor.format, (len(rows), tensor.shape[1]), data)).values
        return whole[:, self.columns.start : self.columns.stop]


class StoredRows(torch.Tensor):
    """A matrix whose numbers are unpacked each time that they are read, as float32.

    Slices and the transposed matrix are not unpacked. Its type is said to be float64: so whoever needs float32 asks for
    it, and nobody takes it for a type that numbers were rounded to.
    """

    _window: _Window
    _turned: bool

    @staticmethod
    def __new__(cls: type[StoredRows], window: _Window, turned: bool = False) -> StoredRows:
        """Take the shape from what is stored."""
        shape = (len(window.order), len(window.columns))
        strides = (shape[1], 1)
        made: StoredRows = torch.Tensor._make_wrapper_subclass(
            cls, shape[::-1] if turned else shape, strides=strides[::-1] if turned else strides, dtype=torch.float64
        )
        return made

    def __init__(self, window: _Window, turned: bool = False) -> None:
        self._window, self._turned = window, turned

    def data_ptr(self) -> int:
        """An address that no other matrix has."""
        first = self._window.order[0] if len(self._window.order) else 0
        return int(self._window.tensor.data[first:].ctypes.data) + self._window.columns.start

    def unpacked(self) -> torch.Tensor:
        """The numbers, float32."""
        values = self._window.values()
        return values.T if self._turned else values

    def _sliced(self, dimension: int = 0, start: int | None = None, stop: int | None = None, step: int = 1) -> Any:
        if step != 1:
            return self.unpacked()[(slice(None),) * (dimension % 2) + (slice(start, stop, step),)]
        own, bounds = self._window, slice(start, stop)
        if (dimension % 2 == 1) == self._turned:
            return StoredRows(replace(own, order=own.order[bounds]), self._turned)
        return StoredRows(replace(own, columns=own.columns[bounds]), self._turned)

    def _looked_up(self, ids: torch.Tensor) -> torch.Tensor:
        different, places = ids.reshape(-1).unique(return_inverse=True)
        rows = replace(self._window, order=self._window.order[different.numpy()]).values()
        return rows[places].view(*ids.shape, rows.shape[1])

    def _bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and the largest number; NaN if any is."""
        step = max(1, _AT_ONCE // self._window.tensor.shape[1])
        parts = [
            torch.aminmax(replace(self._window, order=self._window.order[start : start + step]).values())
            for start in range(0, len(self._window.order), step)
        ]
        return torch.stack([part.min for part in parts]).min(), torch.stack([part.max for part in parts]).max()

    def _without_unpacking(self, func: Any, others: tuple[Any, ...]) -> Any:
        """What an operator gives that needs no numbers, or few at a time; None for all other operators."""
        match func, others:
            case ((_aten.alias.default | _aten.detach.default), ()):
                return StoredRows(self._window, self._turned)
            case (_aten.t.default, ()) | (_aten.permute.default, ([1, 0],)) | (_aten.transpose.int, (0, 1) | (1, 0)):
                return StoredRows(self._window, not self._turned)
            case _aten.slice.Tensor, _:
                return self._sliced(*others)
            case _aten.split.Tensor, (size, *axis):
                dimension = axis[0] if axis else 0
                starts = range(0, self.shape[dimension], size)
                return [self._sliced(dimension, start, start + size) for start in starts]
            case _aten.index.Tensor, ([ids],) if not self._turned:
                return self._looked_up(ids)
            case _aten.aminmax.default, ():
                return self._bounds()
        return None

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares a stub of another form
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator of PyTorch on the unpacked numbers, unless it only looks at the matrix in another way."""
        kwargs = kwargs or {}
        first = args[0]
        if isinstance(first, StoredRows) and not kwargs:
            found = first._without_unpacking(func, args[1:])
            if found is not None:
                return found
        if isinstance(first, StoredRows) and func._schema.is_mutable:
            raise TypeError(f"{func} changes a weight that is only read")
        return func(*tree_map(_unpacked, args), **tree_map(_unpacked, dict(kwargs)))


def _unpacked(value: Any) -> Any:
    return value.unpacked() if isinstance(value, StoredRows) else value


def stored_rows(placement: Placement) -> StoredRows | None:
    """The numbers of a parameter as they are in the file; None if it has more than one tensor, or no rows of blocks."""
    tensor = placement.tensor
    if len(tensor.shape) != 2 or not can_decode(tensor.format):
        return None
    if placement.second is not None or placement.columns is not None:
        return None
    rows = np.arange(tensor.shape[0]) if placement.rows is None else np.asarray(placement.rows, np.int64)
    return StoredRows(_Window(tensor, rows, range(tensor.shape[1])))
