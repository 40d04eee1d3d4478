"""The matrices of a graph: read in float32, kept in as many pieces and in the type that the checkpoint has them in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

# The traced module holds the model under this name.
MODEL_PREFIX = "model."


class StackedTensor(ir.LazyTensor):
    """A float32 matrix whose rows lie in several tensors; they are converted and joined each time that it is read.

    Attributes:
        pieces: float (rows, columns) each, of one type; may be mapped from a file.
    """

    def __init__(self, pieces: tuple[torch.Tensor, ...], name: str | None) -> None:
        shape = ir.Shape([sum(len(piece) for piece in pieces), pieces[0].shape[1]], frozen=True)
        # Not by a method, which would keep the tensors alive until the next collection of garbage.
        super().__init__(partial(_read, pieces), dtype=ir.DataType.FLOAT, shape=shape, name=name)
        self.pieces = pieces

    def stored(self) -> torch.Tensor:
        """All rows in the type that the pieces have; not copied where there is one piece."""
        return _joined(self.pieces)


@dataclass(frozen=True)
class Scaling:
    """What a matrix is multiplied by.

    Attributes:
        rows: float32 (rows,), a factor of each row.
        columns: float32 (columns,), a factor of each column.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def applied_to(self, weight: torch.Tensor) -> torch.Tensor:
        """The scaled matrix, float32 (rows, columns)."""
        return weight.float() * self.rows[:, None] * self.columns


@dataclass(frozen=True)
class ScaledMatrix:
    """A matrix whose rows and columns are multiplied by factors as it is read, some rows at a time.

    Attributes:
        pieces: float (rows, columns) each, of one type, as they are stored; may be mapped from a file.
        scaling: of the rows of all pieces.
    """

    pieces: tuple[torch.Tensor, ...]
    scaling: Scaling

    @property
    def shape(self) -> tuple[int, int]:
        """Of all pieces together."""
        return len(self.scaling.rows), len(self.scaling.columns)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.scaling.rows)

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """Some rows, float32."""
        start, stop, _ = rows.indices(len(self))
        parts, first = [], 0
        for piece in self.pieces:
            parts.append(piece[max(start - first, 0) : max(stop - first, 0)])
            first += len(piece)
        return Scaling(self.scaling.rows[rows], self.scaling.columns).applied_to(torch.cat(parts))


class ScaledTensor(ir.LazyTensor):
    """A scaled matrix as a constant of a graph.

    Attributes:
        matrix: what is read.
    """

    def __init__(self, matrix: ScaledMatrix, name: str | None) -> None:
        super().__init__(
            partial(_read_scaled, matrix), dtype=ir.DataType.FLOAT, shape=ir.Shape(matrix.shape, frozen=True), name=name
        )
        self.matrix = matrix


def _read_scaled(matrix: ScaledMatrix) -> ir.Tensor[Any]:
    return ir.Tensor(matrix[:].contiguous().numpy())


def scale_matrix(value: ir.Value, *, rows: torch.Tensor | None = None, columns: torch.Tensor | None = None) -> None:
    """Multiply the rows or columns of a matrix of a graph; what it is stored as stays as it is.

    Args:
        value: a constant, changed in place.
        rows: float32 (rows,), or None.
        columns: float32 (columns,), or None.
    """
    before = scaling_of(value)
    if before is None:
        height, width = shape_of(value)
        before = ScaledMatrix(pieces_of(value), Scaling(torch.ones(height), torch.ones(width)))
    scaling = Scaling(
        before.scaling.rows if rows is None else before.scaling.rows * rows,
        before.scaling.columns if columns is None else before.scaling.columns * columns,
    )
    value.const_value = ScaledTensor(ScaledMatrix(before.pieces, scaling), value.name)


def scaling_of(value: ir.Value) -> ScaledMatrix | None:
    """A matrix of a graph with its factors; None if it is not scaled."""
    tensor = value.const_value
    return tensor.matrix if isinstance(tensor, ScaledTensor) else None


def scaled_rows(value: ir.Value) -> torch.Tensor | ScaledMatrix:
    """A matrix to read some rows of at a time: as `stored_matrix`, but not read yet where it is scaled.

    Raises:
        ValueError: `value` is not a constant.
    """
    matrix = scaling_of(value)
    return stored_matrix(value) if matrix is None else matrix


def _joined(pieces: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _read(pieces: tuple[torch.Tensor, ...]) -> ir.Tensor[Any]:
    return ir.Tensor(_joined(pieces).float().contiguous().numpy())


def keep_as_stored(graph: ir.Graph, stored: dict[int, torch.Tensor]) -> None:
    """Put stored weights into a traced graph, in the place of the memory that stood for them.

    Args:
        graph: traced by way of `untouched_weights`.
        stored: from there.

    Raises:
        ValueError: a constant is part of such memory.
    """
    for value in graph.initializers.values():
        raw = getattr(value.const_value, "raw", None)
        if not isinstance(raw, torch.Tensor) or raw.data_ptr() not in stored:
            continue
        weight = stored[raw.data_ptr()]
        if raw.shape != weight.shape or raw.stride() != weight.stride():
            raise ValueError(f"{value.name} is a part of a weight")
        value.const_value = StackedTensor((weight,), value.name)


def pieces_of(value: ir.Value) -> tuple[torch.Tensor, ...]:
    """The tensors that hold the rows of a matrix, in the types that they are stored in.

    Raises:
        ValueError: the matrix is scaled, so that they do not hold its rows.
    """
    tensor = value.const_value
    if isinstance(tensor, ScaledTensor):
        raise ValueError(f"{value.name} is scaled")
    return tensor.pieces if isinstance(tensor, StackedTensor) else (matrix(value),)


def same_memory(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    """Whether two lists of tensors hold the same numbers because they lie in the same places."""
    places = [[(piece.data_ptr(), piece.shape, piece.stride()) for piece in pieces] for pieces in (first, second)]
    return places[0] == places[1]


def matrix(value: ir.Value) -> torch.Tensor:
    """The values of an initializer as a torch tensor; not copied if the initializer holds a torch tensor.

    Weights that are stored in 16 bits are converted to float32.

    Raises:
        ValueError: `value` is not a constant.
    """
    stored = stored_matrix(value)
    return stored.float().contiguous() if isinstance(value.const_value, StackedTensor) else stored


def stored_matrix(value: ir.Value) -> torch.Tensor:
    """As `matrix`, but in the type that it is stored in; a scaled one in float32.

    Raises:
        ValueError: `value` is not a constant.
    """
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name} is not a constant")
    if isinstance(tensor, StackedTensor):
        return tensor.stored()
    if isinstance(tensor, ScaledTensor):
        return tensor.matrix[:]
    raw = getattr(tensor, "raw", None)
    return raw.detach() if isinstance(raw, torch.Tensor) else torch.from_numpy(np.array(tensor.numpy()))


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The shape of an initializer, which is not read.

    Raises:
        ValueError: `value` is not a constant.
    """
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name} is not a constant")
    return tuple(int(size) for size in tensor.shape.numpy())
