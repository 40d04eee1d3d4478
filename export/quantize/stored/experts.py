"""Replaces the experts of a mixture by com.microsoft::QMoE on a file's own blocks.

QMoE takes whole numbers as zero points, and the middle of the integers' range where there are none, so the blocks of
formats without minimums are what it computes with. Those of other formats are not kept: a minimum is no whole number of
steps, and the input of the second product, whose sums it would be multiplied by, is inside the operator.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from triform.export.checkpoint.gguf.blocks import BlockMatrix
from triform.export.checkpoint.gguf.placed_blocks import expert_blocks_of
from triform.export.graph.experts import EXPERTS, expert_attributes, expert_biases
from triform.export.graph.nodes import MICROSOFT, add_initializer, attribute, insert, nodes, replace, sweep
from triform.export.quantize.stored.blocks import StoredWeights
from triform.export.quantize.stored.constants import StoredConstants


def lower_stored_experts(model: ir.Model, stored: StoredWeights, bits: int, accuracy_level: int) -> dict[str, int]:
    """Replace the Experts nodes whose blocks the operator can represent with so many bits.

    Args:
        model: changed in place.
        stored: where the weights are.
        bits: 4 for formats of at most 4 bits, or 8 for the others.
        accuracy_level: of QMoE; 1 computes with float32 activations where the weights have 4 bits.

    Returns:
        the number of matrices in each format, one for each expert and product.
    """
    formats: Counter[str] = Counter()
    # The unpacking nodes come first, as those of other matrices.
    start = next(iter(model.graph), None)
    for node in nodes(model.graph, EXPERTS):
        found = _blocks_of(node, stored)
        if found is None or found.bits != bits or start is None:
            continue
        _lower(model.graph, start, node, found, accuracy_level)
        for kind in found.formats:
            formats[kind] += found.experts
    sweep(model)
    return dict(sorted(formats.items()))


@dataclass(frozen=True)
class _Mixture:
    """The blocks of one layer's experts, of one size.

    Attributes:
        experts: how many.
        up: of the first product, gates and what they open alternating; the rows of all experts one below the other.
        down: of the second product.
        formats: of both.
    """

    experts: int
    up: BlockMatrix
    down: BlockMatrix
    formats: tuple[str, str]

    @property
    def bits(self) -> int:
        """Bits of a number in the operator."""
        return 4 if max(self.up.bits, self.down.bits) <= 4 else 8


def _blocks_of(node: ir.Node, stored: StoredWeights) -> _Mixture | None:
    """The blocks of a node's weights; None if the operator cannot represent them."""
    values = [*node.inputs, None, None][:6]
    placements = [None if value is None else stored.placements.get(str(value.name)) for value in (values[2], values[4])]
    if placements[0] is None or placements[1] is None:
        return None
    up = expert_blocks_of(placements[0], alternating=attribute(node, "activation") == "swiglu")
    down = None if up is None else expert_blocks_of(placements[1], alternating=False)
    if up is None or down is None:
        return None
    size = min(up.block_size, down.block_size)
    formats = placements[0].tensor.format.name, placements[1].tensor.format.name
    return _Mixture(placements[1].tensor.shape[0], up.cut(size), down.cut(size), formats)


def _lower(graph: ir.Graph, start: ir.Node, node: ir.Node, found: _Mixture, accuracy_level: int) -> None:
    up_bias, down_bias = (
        None if bias is None else add_initializer(graph, f"{node.name}.bias", bias.contiguous().numpy())
        for bias in expert_biases(node)
    )
    up, down = (
        _constants(StoredConstants(graph, start, str(value.name)), matrix, found)
        for value, matrix in ((node.inputs[2], found.up), (node.inputs[4], found.down))
        if value is not None
    )
    # Behind these come a third product, zero points, and the weights of the experts as they are.
    inputs = [node.inputs[0], node.inputs[1], *up, up_bias, *down, down_bias, *[None] * 6, node.inputs[1]]
    attributes = expert_attributes(node) | {
        "expert_weight_bits": found.bits, "block_size": found.up.block_size, "accuracy_level": accuracy_level,
        "weights_prepacked": 0,
    }  # fmt: skip
    mixed = insert(graph, node, "QMoE", inputs, domain=MICROSOFT, attributes=attributes)
    replace(node.outputs[0], mixed.outputs[0])


def _constants(constants: StoredConstants, matrix: BlockMatrix, found: _Mixture) -> tuple[ir.Value, ir.Value]:
    """The numbers and scales of all experts, (experts, rows, …)."""
    rows, blocks, size = matrix.numbers.shape
    numbers = constants.numbers(matrix.numbers, matrix.bits, found.bits)
    scales = constants.factors(matrix.scales, 2.0 ** (matrix.bits - found.bits), "scales")
    shape = found.experts, rows // found.experts
    return (
        constants.shaped(numbers, (*shape, blocks * size * found.bits // 8)),
        constants.shaped(scales, (*shape, blocks)),
    )
