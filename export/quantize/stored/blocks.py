"""Replaces Linear nodes with quantized weights by operators on the file's own blocks.

The values of a block are `scale * q - minimum` in a GGUF file, and `scale * (q - 2 ** (bits - 1))` in MatMulNBits. For
formats without minimums the two are the same. For the others a second product is added: each block's offset times the
sum of the block's inputs. MatMulNBits takes offsets as zero points itself, but if these are not integers it unpacks the
whole matrix in every call (onnxruntime 1.32, CPU).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from gguf import GGMLQuantizationType as Format

from triform.export.checkpoint.gguf.blocks import BlockMatrix
from triform.export.checkpoint.gguf.placed_blocks import blocks_of, format_of, stacked
from triform.export.checkpoint.gguf.placement import Placement
from triform.export.graph.linear import LINEAR, parts_of
from triform.export.graph.nodes import MICROSOFT, add_initializer, insert, nodes, replace, set_type, sweep
from triform.export.quantize.blocks import is_token_table, linear_inputs
from triform.export.quantize.stored.constants import StoredConstants
from triform.runtime.errors import ExportError, option


@dataclass(frozen=True)
class StoredWeights:
    """Where a graph's weights are in a file.

    Attributes:
        placements: by the name of the weight's initializer.
    """

    placements: Mapping[str, Placement]

    def without(self, names: Collection[str]) -> StoredWeights:
        """The same without some initializers, which are stored otherwise."""
        return StoredWeights({name: place for name, place in self.placements.items() if name not in names})

    def kind_of(self, weight: ir.Value) -> Format | None:
        """The format of a weight's blocks; None if it is not in blocks, or no operator supports its format."""
        kinds = {self._format(part) for part in parts_of(weight)}
        return kinds.pop() if len(kinds) == 1 else None

    def matrix(self, weight: ir.Value) -> BlockMatrix:
        """The blocks of a weight in a supported format."""
        return stacked([blocks_of(self.placements[part]) for part in parts_of(weight)])

    def check_kept(self, kept: Collection[str]) -> None:
        """Check that the graph has the blocks of every weight in a supported format.

        Args:
            kept: names of the initializers whose blocks are in the graph.

        Raises:
            ExportError: the blocks of a weight are missing; the error names it.
        """
        names = {self.placements[name].tensor.name for name in kept if name in self.placements}
        lost = sorted(
            placement.tensor.name
            for name, placement in self.placements.items()
            if self._format(name) is not None and placement.tensor.name not in names
        )
        if lost:
            raise ExportError(f"the blocks of {lost[0]} cannot be kept; choose {option('quantize')} int8 or int4")

    def _format(self, name: str) -> Format | None:
        placement = self.placements.get(name)
        return None if placement is None else format_of(placement)


def lower_to_stored_blocks(model: ir.Model, stored: StoredWeights, accuracy_level: int) -> dict[str, int]:
    """Replace Linears, and lookups of token embeddings, by operators on the file's blocks.

    Nodes whose weights are not in blocks stay as they are.

    Args:
        model: changed in place.
        stored: where the weights are.
        accuracy_level: of MatMulNBits.

    Returns:
        the number of matrices in each format.

    Raises:
        ExportError: blocks would be lost.
    """
    kept: dict[int, _Kept] = {}
    formats: Counter[str] = Counter()
    names: set[str] = set()
    # The unpacking nodes come first, because the head may share its constants with the embedding.
    start = next(iter(model.graph))
    means: dict[tuple[int, int], ir.Value] = {}
    for node in nodes(model.graph, LINEAR):
        _, weight, _ = linear_inputs(node)
        kind = stored.kind_of(weight)
        if kind is None:
            continue
        names.update(parts_of(weight))
        kept[id(weight)] = _Kept(StoredConstants(model.graph, start, str(weight.name)), stored.matrix(weight))
        kept[id(weight)].lower_product(model.graph, node, accuracy_level, means)
        formats[kind.name] += 1
        if not weight.uses():
            # As `sweep` does; its floats are not held longer than needed.
            del kept[id(weight)]
            weight.const_value = None
    names |= _lower_token_tables(model, start, stored, kept, formats)
    stored.check_kept(names)
    return dict(sorted(formats.items()))


class _Kept:
    """One matrix in the graph."""

    def __init__(self, constants: StoredConstants, matrix: BlockMatrix) -> None:
        self._constants, self._matrix = constants, matrix
        self._bits = 4 if matrix.bits <= 4 else 8
        self._numbers = constants.numbers(matrix.numbers, matrix.bits, self._bits)
        self._scales = constants.factors(matrix.scales, 2.0 ** (matrix.bits - self._bits), "scales")
        self._offsets = (
            None if matrix.minimums is None else constants.offsets(matrix.minimums, self._scales, self._bits)
        )

    def lower_product(
        self, graph: ir.Graph, node: ir.Node, accuracy_level: int, means: dict[tuple[int, int], ir.Value]
    ) -> None:
        """Replace a Linear.

        Args:
            graph: changed in place.
            node: the Linear.
            accuracy_level: of MatMulNBits.
            means: block means that the graph has already, by the identity of the value and the block size; extended.
        """
        x, _, bias = linear_inputs(node)
        rows, blocks, size = self._matrix.numbers.shape
        attributes = {
            "K": blocks * size, "N": rows, "bits": self._bits, "block_size": size, "accuracy_level": accuracy_level,
        }  # fmt: skip
        inputs = [x, self._numbers, self._scales, *([] if bias is None else [None, None, bias])]
        product = insert(graph, node, "MatMulNBits", inputs, domain=MICROSOFT, attributes=attributes).outputs[0]
        if self._offsets is not None:
            set_type(product, node.outputs[0])
            if (id(x), size) not in means:
                means[id(x), size] = _block_means(graph, node, x, size)
            offsets = self._constants.times(self._offsets, size)
            added = insert(
                graph, node, "FusedMatMul", [means[id(x), size], offsets], domain=MICROSOFT, attributes={"transB": 1}
            ).outputs[0]
            set_type(added, node.outputs[0])
            product = insert(graph, node, "Add", [product, added]).outputs[0]
        replace(node.outputs[0], product)

    def lower_lookup(self, graph: ir.Graph, node: ir.Node) -> None:
        """Replace a Gather of rows by token ids."""
        ids, result = node.inputs[1], node.outputs[0]
        rows, blocks, size = self._matrix.numbers.shape
        attributes = {"bits": self._bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
        data = self._constants.rows(self._numbers, rows)
        values = insert(
            graph, node, "GatherBlockQuantized", [data, ids, self._scales], domain=MICROSOFT, attributes=attributes
        ).outputs[0]
        if self._offsets is not None:
            added = insert(graph, node, "Gather", [self._offsets, ids]).outputs[0]
            by_block = add_initializer(graph, f"{node.name}.by_block", np.array([0, 0, blocks, size]))
            whole = add_initializer(graph, f"{node.name}.whole", np.array([0, 0, blocks * size]))
            last = add_initializer(graph, f"{node.name}.last", np.array([-1]))
            cut = insert(graph, node, "Reshape", [values, by_block]).outputs[0]
            offsets = insert(graph, node, "Unsqueeze", [added, last]).outputs[0]
            shifted = insert(graph, node, "Add", [cut, offsets]).outputs[0]
            values = insert(graph, node, "Reshape", [shifted, whole]).outputs[0]
        replace(result, values)


def _block_means(graph: ir.Graph, node: ir.Node, x: ir.Value, size: int) -> ir.Value:
    """The mean of each block of the last axis of a value with three dimensions, (batch, sequence, blocks)."""
    return insert(graph, node, "AveragePool", [x], attributes={"kernel_shape": [size], "strides": [size]}).outputs[0]


def _lower_token_tables(
    model: ir.Model, start: ir.Node, stored: StoredWeights, kept: dict[int, _Kept], formats: Counter[str]
) -> set[str]:
    names: set[str] = set()
    for node in nodes(model.graph, "Gather"):
        table, ids = node.inputs
        if table is None or ids is None or not table.is_initializer() or not is_token_table(model, table, ids):
            continue
        kind = stored.kind_of(table)
        if kind is None:
            continue
        if id(table) not in kept:
            kept[id(table)] = _Kept(StoredConstants(model.graph, start, str(table.name)), stored.matrix(table))
            formats[kind.name] += 1
        names.add(str(table.name))
        kept[id(table)].lower_lookup(model.graph, node)
    sweep(model)
    return names
