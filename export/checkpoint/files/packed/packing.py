"""How a format of packed weights names the tensors of a matrix, and what unpacks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from triform.runtime.errors import ExportError

# Others are as many as numbers of another size in these.
_WORDS = (torch.int32, torch.uint32)
PackedTensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Grid:
    """A matrix of integers, of which each group in a row has a scale and a zero point: (number - zero) * scale.

    Attributes:
        numbers: int32 (out_features, in_features), from 0 to 2 ** bits - 1.
        zeros: as `numbers`, (out_features, groups).
        scales: float (out_features, groups).
        bits: of a number.
        group: int64 (in_features,), the group of each column; None where they follow each other and are equally long.
    """

    numbers: torch.Tensor
    zeros: torch.Tensor
    scales: torch.Tensor
    bits: int
    group: torch.Tensor | None = None

    def matrix(self) -> torch.Tensor:
        """The numbers that it stands for, (out_features, in_features) in the type of the scales.

        Raises:
            ValueError: the shapes do not fit.
        """
        rows, width = self.numbers.shape
        groups = self.scales.shape[1]
        if self.scales.shape != (rows, groups) or self.zeros.shape != (rows, groups):
            raise ValueError("scales or zero points of another shape")
        if self.group is not None:
            centered = self.numbers - self.zeros[:, self.group]
            return (centered * self.scales.float()[:, self.group]).to(self.scales.dtype)
        if width % groups:
            raise ValueError("groups of different lengths")
        centered = self.numbers.view(rows, groups, -1) - self.zeros[..., None]
        return (centered * self.scales.float()[..., None]).view(rows, width).to(self.scales.dtype)


@dataclass(frozen=True)
class Packing:
    """The tensors that a matrix is packed into. Each is named after its module, as ``layers.0.mlp.up_proj.qweight``.

    Attributes:
        mark: the last part of the name of a tensor that only packed matrices have.
        others: those of the others; some may be absent.
        unpack: gives the matrix, (out_features, in_features), from the tensors by the last parts of their names.
        unused: last parts of names of tensors that say nothing of the matrix.
        as_grid: whether `unpack` gives a grid.
    """

    mark: str
    others: tuple[str, ...]
    unpack: Callable[[PackedTensors], torch.Tensor | Grid]
    unused: tuple[str, ...] = ()
    as_grid: bool = False


@dataclass(frozen=True)
class Packed:
    """A packed matrix.

    Attributes:
        name: of the matrix, as ``layers.0.mlp.up_proj.weight``.
        tensors: names of its tensors, by their last parts.
        packing: how they belong together.
    """

    name: str
    tensors: Mapping[str, str]
    packing: Packing


def packed_matrices(names: Iterable[str], packings: Iterable[Packing]) -> list[Packed]:
    """Find the packed matrices among a checkpoint's tensors; each tensor belongs to the first packing that fits."""
    held, found = set(names), []
    for packing in packings:
        for name in sorted(held):
            module, _, end = name.rpartition(f".{packing.mark}")
            if end or not module:
                continue
            endings = (packing.mark, *packing.others, *packing.unused)
            tensors = {last: f"{module}.{last}" for last in endings if f"{module}.{last}" in held}
            found.append(Packed(f"{module}.weight", tensors, packing))
            held -= set(tensors.values())
    return found


class UnpackedWeight:
    """A matrix that is unpacked when it is indexed, as slices of safetensors are read."""

    def __init__(self, packed: Packed, tensors: Mapping[str, Any], turned: bool = False) -> None:
        """Take the tensors, or slices of files, by name."""
        self._packed, self._tensors, self._turned = packed, tensors, turned

    def turned(self) -> UnpackedWeight:
        """The same matrix as (in_features, out_features)."""
        return UnpackedWeight(self._packed, self._tensors, turned=True)

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The matrix, or a part of it.

        Raises:
            ExportError: its tensors do not fit each other.
        """
        tensors = self._read()
        with self._named(tensors):
            found = self._packed.packing.unpack(tensors)
            matrix = found.matrix() if isinstance(found, Grid) else found
            return (matrix.T.contiguous() if self._turned else matrix)[index]

    def grid(self) -> Grid | None:
        """Its integers; None if it is stored otherwise. Raises as `__getitem__`."""
        tensors = self._read()
        with self._named(tensors):
            found = self._packed.packing.unpack(tensors)
        return found if isinstance(found, Grid) else None

    def _read(self) -> PackedTensors:
        unused = self._packed.packing.unused
        return {last: self._tensors[name][...] for last, name in self._packed.tensors.items() if last not in unused}

    @contextmanager
    def _named(self, tensors: PackedTensors) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError) as error:
            shapes = ", ".join(
                f"{last} {list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
                for last, tensor in tensors.items()
            )
            raise ExportError(
                f"{self._packed.name} cannot be unpacked: its tensors are {shapes}; fetch the model again"
            ) from error


def integers(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The unsigned numbers in the int32 of the last axis, that of the lowest bits first; int32, a longer last axis.

    Those of 3 bits span two integers where the first has no place for them.

    Raises:
        TypeError: the integers are of another size, which other numbers of other bits would fit as well.
    """
    if packed.dtype not in _WORDS:
        raise TypeError(f"integers of {packed.dtype}")
    if bits == 3:
        stream = ((packed.to(torch.int32)[..., None] >> torch.arange(32)) & 1).flatten(-2)
        return (stream.unflatten(-1, (-1, 3)) << torch.arange(3)).sum(-1, dtype=torch.int32)
    shifts = torch.arange(0, 32 // bits * bits, bits, dtype=torch.int32)
    return ((packed.to(torch.int32)[..., None] >> shifts) & (2**bits - 1)).flatten(-2)


def column_groups(group: torch.Tensor | None, width: int, groups: int) -> torch.Tensor | None:
    """The group of each column for a `Grid`, from what a file says of it, if anything.

    Raises:
        ValueError: it does not say the group of each of `width` columns.
    """
    if group is None:
        return None
    group = group.long()
    if len(group) != width or bool((group < 0).any()):
        raise ValueError("groups of other columns")
    follow = width % groups == 0 and torch.equal(group, torch.arange(width) // (width // groups))
    return None if follow else group
