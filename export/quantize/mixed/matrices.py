"""The matrices of a graph, what was measured of each, and how each can be stored."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.export.graph.linear import LINEAR, parts_of
from triform.export.graph.nodes import nodes
from triform.export.graph.weights import MODEL_PREFIX, Scaling, pieces_of, scaling_of, shape_of
from triform.export.quantize.blocks import FEWEST_COLUMNS, is_token_table, linear_inputs
from triform.export.quantize.blockwise import Blocks, dequantize, stack_blocks
from triform.export.quantize.error_feedback import quantize_with_moments
from triform.export.quantize.mixed.allocation import Choice, Point
from triform.export.quantize.mixed.choices import Part, sampled
from triform.export.quantize.mixed.moments import Moments, Sensitivity
from triform.export.quantize.threads import in_threads
from triform.runtime.errors import UnsupportedError, option

# On SmolLM2-135M with 4 bits in blocks of 32, damping by .03, .1, .3 and 1 gave a divergence of .064, .058, .056 and
# .068 on other text than was calibrated on.
_DAMPING = 0.3


@dataclass(frozen=True)
class Matrix:
    """A matrix that is stored as one.

    Attributes:
        parts: its rows, with what was measured of them.
        looked_up: whether rows of it are looked up by token ids, beside products or alone.
        multiplied: whether it is read by a product.
    """

    parts: list[Part]
    looked_up: bool
    multiplied: bool

    @property
    def size(self) -> int:
        """How many weights it has."""
        return sum(part.weight.numel() for part in self.parts)


def matrices_of(
    model: ir.Model,
    parameters: Mapping[str, torch.nn.Parameter],
    sensitivity: Sensitivity,
    others: Container[str] = (),
) -> dict[str, Matrix]:
    """By name of the weight, the matrices to quantize: of products that are not small, and of token embeddings.

    Args:
        model: the graph, not lowered yet.
        parameters: of the model that was traced, by name.
        sensitivity: what was measured of them.
        others: names of weights that can be stored without being measured; they are left out where nothing was.

    Raises:
        UnsupportedError: the graph has weights that no module of PyTorch multiplies by.
    """
    matrices = {}
    for name, value in _weights(model).items():
        parts = _parts(value, parameters, sensitivity)
        if parts is not None:
            multiplied = any(use.node.op_type != "Gather" for use in value.uses())
            matrices[name] = Matrix(parts, _is_table(model, value), multiplied)
        elif name not in others:
            raise not_measured(_parameters(value)[0])
    return matrices


def not_measured(name: str) -> UnsupportedError:
    """The refusal of a weight, by its name in PyTorch, of which nothing was measured."""
    return UnsupportedError(
        f"the damage of rounding {name} cannot be measured; export with {option('quantize')} int4 or int8"
    )


def sizes_of(matrices: Mapping[str, Matrix]) -> dict[str, int]:
    """How many weights each has."""
    return {name: item.size for name, item in matrices.items()}


class RoundedMatrices:
    """Rounds matrices with error feedback, each in each way once, as long as a way is kept."""

    def __init__(self, matrices: Mapping[str, Matrix]) -> None:
        self._matrices = matrices
        self._done: dict[tuple[str, Choice], Blocks] = {}

    def of(self, point: Point) -> dict[str, Blocks]:
        """The blocks of each matrix that is stored in blocks."""
        in_blocks = [
            (name, choice)
            for name, choice in point.choices.items()
            if name in self._matrices and choice.block_size is not None
        ]
        missing = [key for key in in_blocks if key not in self._done]
        results = in_threads(lambda key: rounded(self._matrices[key[0]].parts, key[1]), missing)
        self._done.update(zip(missing, results, strict=True))
        return {name: self._done[name, choice] for name, choice in in_blocks}

    def keep(self, *points: Point) -> None:
        """Forget all blocks but those of these points."""
        kept = {(name, choice) for point in points for name, choice in point.choices.items()}
        self._done = {key: blocks for key, blocks in self._done.items() if key in kept}


def _weights(model: ir.Model) -> dict[str, ir.Value]:
    """The matrices to quantize, by name: of products that are not small, and of token embeddings."""
    values = [linear_inputs(node)[1] for node in nodes(model.graph, LINEAR)]
    matrices = {str(value.name): value for value in values if shape_of(value)[0] >= FEWEST_COLUMNS}
    for node in nodes(model.graph, "Gather"):
        table = node.inputs[0]
        if table is not None and _is_table(model, table):
            matrices[str(table.name)] = table
    return matrices


def _is_table(model: ir.Model, value: ir.Value) -> bool:
    if not value.is_initializer():
        return False
    gathers = [use.node for use in value.uses() if use.node.op_type == "Gather" and use.node.inputs[0] is value]
    return any(ids is not None and is_token_table(model, value, ids) for ids in (node.inputs[1] for node in gathers))


def _parts(value: ir.Value, known: Mapping[str, torch.nn.Parameter], sensitivity: Sensitivity) -> list[Part] | None:
    """The parts of a stored matrix, with what was measured of each; None if nothing was of one of them."""
    parts = []
    names, (pieces, scalings) = _parameters(value), _pieces(value)
    looked_up = any(use.node.op_type == "Gather" for use in value.uses())
    if len(pieces) != len(names):
        return None
    for name, rows, scaling in zip(names, pieces, scalings, strict=True):
        parameter = known.get(name)
        moments = None if parameter is None else sensitivity.products.get(id(parameter))
        table = sensitivity.tables.get(id(parameter), sensitivity.embedding) if looked_up else None
        if moments is None and table is not None:
            moments = _of_table(rows, table)
        if moments is None or len(moments.outputs) != len(rows):
            return None
        inputs = moments.inputs
        if table is not None:
            inputs = inputs + torch.diag(table)
        parts.append(Part(rows, inputs, moments.outputs / moments.outputs.sum().clamp(min=1e-30), scaling))
    return parts


def _parameters(value: ir.Value) -> list[str]:
    """Names of the parameters that a stored matrix is made of."""
    return [name.removeprefix(MODEL_PREFIX).removesuffix(".transposed") for name in parts_of(value)]


def _pieces(value: ir.Value) -> tuple[tuple[torch.Tensor, ...], list[Scaling | None]]:
    """The rows of each part of a stored matrix, and what they are multiplied by."""
    matrix = scaling_of(value)
    if matrix is None:
        pieces = pieces_of(value)
        return pieces, [None] * len(pieces)
    rows = matrix.scaling.rows.split([len(piece) for piece in matrix.pieces])
    return matrix.pieces, [Scaling(factors, matrix.scaling.columns) for factors in rows]


def energies_of_products(
    model: ir.Model, parameters: Mapping[str, torch.nn.Parameter], sensitivity: Sensitivity
) -> dict[str, torch.Tensor]:
    """By name of the weight, what the channels that a product reads count for; what was not measured is left out.

    Arguments as `matrices_of`.

    Returns:
        float32 (in_features,) each: the mean squares, each token weighted by its squared gradients; of what chooses
        experts the sums of squares.
    """
    energies = {}
    for value in {linear_inputs(node)[1] for node in nodes(model.graph, LINEAR)}:
        known = [id(parameters[name]) for name in _parameters(value) if name in parameters]
        diagonals = [sensitivity.products[key].inputs.diagonal() for key in known if key in sensitivity.products]
        diagonals += [sensitivity.routers[key] for key in known if key in sensitivity.routers]
        if diagonals:
            energies[str(value.name)] = torch.stack(diagonals).sum(0)
    return energies


def _of_table(rows: torch.Tensor, embedding: torch.Tensor) -> Moments | None:
    """Of a matrix that is only looked up: nothing besides what `_parts` adds for that."""
    if rows.shape[1] != len(embedding):
        return None
    return Moments(torch.zeros(len(embedding), len(embedding)), torch.ones(len(rows)))


def rounded(parts: Sequence[Part], choice: Choice) -> Blocks:
    """The rows of all parts, rounded to blocks with error feedback."""
    if choice.block_size is None:
        raise ValueError(f"{choice} has no blocks")
    return stack_blocks(
        [
            quantize_with_moments(part.scaled_weight(), part.scaled_moments(), choice.bits, choice.block_size, _DAMPING)
            for part in parts
        ]
    )


def damage_with_feedback(part: Part, bits: int, block_size: int) -> float:
    """Of rounding with error feedback, from some of the rows."""
    sample = sampled(part)
    weight = sample.scaled_weight()
    blocks = rounded([sample], Choice(bits, block_size, 0, 0.0))
    change = torch.from_numpy(dequantize(blocks, weight.shape[1])) - weight
    return half_of_squares(change, sample.scaled_moments(), sample.rows)


def half_of_squares(rows: torch.Tensor, moments: torch.Tensor, shares: torch.Tensor) -> float:
    """Half of what the squares of the products with these rows mean for the results.

    Args:
        rows: float32 (rows, in_features).
        moments: see `Part.moments`.
        shares: see `Part.rows`.
    """
    squares = ((rows @ moments) * rows).sum(-1)
    return float(0.5 * (squares * shares).sum() / shares.sum().clamp(min=1e-30))
