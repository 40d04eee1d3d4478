"""Replaces Linear nodes by operators of ONNX Runtime: in float32, or with blockwise quantized weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as replace_fields

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from triform.export.graph.experts import lower_experts_to_float
from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import MICROSOFT, add_initializer, insert, nodes, replace, set_type, sweep, widened
from triform.export.graph.packed import packed
from triform.export.graph.weights import scaled_rows, shape_of, stored_matrix
from triform.export.quantize.blockwise import SMALLEST_BLOCK, Blocks, fitting_block_size, quantize_matrix
from triform.export.quantize.experts import lower_experts
from triform.export.report import Counted, uncounted

# Products with fewer columns, such as routers, are small, and their errors do much harm; they stay in float32.
FEWEST_COLUMNS = 16
# Tables of hashed tokens have at least so many numbers; tables of positions or token types have fewer.
_LARGE_TABLE = 2**20
# Block size of the products whose errors matter most: those that feed attention, and the language-model head.
SENSITIVE_BLOCK_SIZE = 32

# Called with each constant that is made, to write it; see `GraphFile.store`.
Store = Callable[[ir.Value], None]


def keep_in_memory(_: ir.Value) -> None:
    """Leave a constant where it is, for `write_graph`."""


@dataclass(frozen=True)
class Scheme:
    """How to quantize the weights of a graph.

    Attributes:
        bits: 4 or 8.
        block_size: weights that share a scale, in most products; fewer where the last block would be padded so much
            that smaller ones take less.
        accuracy_level: of MatMulNBits; 4 computes with 8-bit activations, 1 with float32.
    """

    bits: int
    block_size: int
    accuracy_level: int

    def block_size_of(self, linear: ir.Node) -> int:
        """Smaller blocks for the products that feed attention and for the language-model head."""
        width = shape_of(linear_inputs(linear)[1])[1]
        if linear.outputs[0].is_graph_output():
            return self.block_size_of_table(width)
        largest = min(self.block_size, SENSITIVE_BLOCK_SIZE) if _reaches_attention(linear) else self.block_size
        return fitting_block_size(width, self.bits, largest)

    def block_size_of_table(self, width: int) -> int:
        """Of a token embedding, or a head that may be tied to one: the smallest where others would need padding."""
        size = min(self.block_size, SENSITIVE_BLOCK_SIZE)
        return SMALLEST_BLOCK if width % size else size


def _reaches_attention(linear: ir.Node) -> bool:
    result = linear.outputs[0]
    users = [use.node for use in result.uses()]
    users += [use.node for node in users if node.op_type == "Split" for out in node.outputs for use in out.uses()]
    return any(node.op_type == "GroupQueryAttention" for node in users)


def lower_to_float(model: ir.Model) -> None:
    """Replace every Linear by a float32 product that reads the weight in PyTorch's layout, so none is stored twice.

    Experts become float32 operators too.
    """
    for node in nodes(model.graph, LINEAR):
        x, weight, bias = linear_inputs(node)
        product = insert(
            model.graph, node, "FusedMatMul", [x, weight], domain=MICROSOFT, attributes={"transB": 1}
        ).outputs[0]
        _finish(model.graph, node, product, bias)
    lower_experts_to_float(model)


def lower_to_blocks(
    model: ir.Model,
    scheme: Scheme,
    importance: Mapping[str, torch.Tensor],
    store: Store = keep_in_memory,
    counted: Counted = uncounted,
    kept: Callable[[ir.Value], Blocks | None] = lambda _: None,
) -> int:
    """Quantize every Linear, all experts and the token embeddings blockwise.

    A head that is tied to the embedding shares its stored matrix: both operators read the same bytes.

    Args:
        model: changed in place.
        scheme: bits, block sizes and accuracy level.
        importance: by weight name, the energy of each input channel, float32 (in_features,); see `energies`.
        store: for the blocks.
        counted: reports how many products are done.
        kept: gives the blocks of a weight that has them already.

    Returns:
        how many matrices were quantized.
    """
    done: dict[int, Blocks] = {}
    count = 0
    for node in counted(nodes(model.graph, LINEAR)):
        _, weight, _ = linear_inputs(node)
        if shape_of(weight)[0] < FEWEST_COLUMNS:
            continue
        blocks = kept(weight)
        if blocks is None:
            size = scheme.block_size_of(node)
            blocks = quantize_matrix(scaled_rows(weight), importance.get(str(weight.name)), scheme.bits, size)
        if _is_token_embedding(model, weight):
            done[id(weight)] = blocks
        lower_product(model.graph, node, blocks, scheme.accuracy_level, store)
        _drop_unused(model.graph, weight)
        count += 1
    count += lower_experts(model, scheme.bits, scheme.block_size, scheme.accuracy_level, importance)
    lower_to_float(model)
    return count + lower_embeddings(model, scheme, done, store)


def _drop_unused(graph: ir.Graph, weight: ir.Value) -> None:
    """Let go of a weight that no node reads any more."""
    if not weight.uses() and not weight.is_graph_output():
        # As `sweep` does.
        graph.initializers.pop(str(weight.name)).const_value = None


def lower_product(
    graph: ir.Graph, node: ir.Node, blocks: Blocks, accuracy_level: int, store: Store = keep_in_memory
) -> None:
    """Replace a Linear by MatMulNBits with these blocks, which `store` is called with."""
    x, weight, bias = linear_inputs(node)
    rows, columns = shape_of(weight)
    attributes = {
        "K": columns, "N": rows, "bits": blocks.bits, "block_size": blocks.block_size,
        "accuracy_level": accuracy_level,
    }  # fmt: skip
    integers = _integers(graph, f"{weight.name}.blocks", blocks, store)
    factors = _factors(graph, node, str(weight.name), blocks, store)
    inputs = [x, integers, *factors, None, bias][: 6 if bias is not None else 4]
    product = insert(graph, node, "MatMulNBits", inputs, domain=MICROSOFT, attributes=attributes)
    replace(node.outputs[0], product.outputs[0])
    graph.remove(node, safe=True)


def lower_tied_heads(model: ir.Model, scheme: Scheme) -> dict[int, Blocks]:
    """Quantize every Linear whose matrix is a token embedding too, in blocks that `lower_embeddings` can share.

    Args:
        model: changed in place.
        scheme: bits, block sizes and accuracy level.

    Returns:
        the blocks, by the identity of the value that holds the matrix.
    """
    done: dict[int, Blocks] = {}
    for node in nodes(model.graph, LINEAR):
        _, weight, _ = linear_inputs(node)
        if not _is_token_embedding(model, weight):
            continue
        rows = stored_matrix(weight)
        done[id(weight)] = quantize_matrix(rows, None, scheme.bits, scheme.block_size_of_table(rows.shape[1]))
        lower_product(model.graph, node, done[id(weight)], scheme.accuracy_level)
    return done


def _is_token_embedding(model: ir.Model, weight: ir.Value) -> bool:
    """Whether a Gather reads rows of this matrix by token ids."""
    gathers = [use.node for use in weight.uses() if use.node.op_type == "Gather"]
    return any(ids is not None and is_token_table(model, weight, ids) for ids in (node.inputs[1] for node in gathers))


def lower_embeddings(model: ir.Model, scheme: Scheme, done: Mapping[int, Blocks], store: Store = keep_in_memory) -> int:
    """Quantize token embeddings blockwise; small tables, and those indexed by other values, stay as they are.

    Args:
        model: changed in place.
        scheme: bits and block sizes.
        done: blocks of matrices that are quantized already, by the identity of the value; a tied head's are shared.
        store: for the blocks.

    Returns:
        how many matrices were quantized.
    """
    count = 0
    for node in nodes(model.graph, "Gather"):
        table, ids = node.inputs
        if table is None or ids is None or not table.is_initializer() or not is_token_table(model, table, ids):
            continue
        width = shape_of(table)[1]
        shared = done.get(id(table))
        if shared is None:
            shared = quantize_matrix(scaled_rows(table), None, scheme.bits, scheme.block_size_of_table(width))
            count += 1
        data = _rows(model.graph, f"{table.name}.rows.blocks", shared, store)
        scales, zero_points = _factors(model.graph, node, f"{table.name}.rows", shared, store)
        attributes = {"bits": shared.bits, "block_size": shared.block_size, "gather_axis": 0, "quantize_axis": 1}
        gather = insert(
            model.graph, node, "GatherBlockQuantized", [data, ids, scales, zero_points], domain=MICROSOFT,
            attributes=attributes,
        )  # fmt: skip
        rows = gather.outputs[0]
        replace(node.outputs[0], rows if width % shared.block_size == 0 else _first_columns(node, rows, width))
    sweep(model)
    return count


def _first_columns(node: ir.Node, rows: ir.Value, width: int) -> ir.Value:
    """The looked-up rows without the columns that pad their last block."""
    graph, name = node.graph, str(node.outputs[0].name)
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{node.name} is in no graph")
    bounds = [
        add_initializer(graph, f"{name}.{what}", np.array([value]))
        for what, value in (("start", 0), ("end", width), ("axis", -1))
    ]
    return insert(graph, node, "Slice", [rows, *bounds]).outputs[0]


def is_token_table(model: ir.Model, table: ir.Value, ids: ir.Value) -> bool:
    """Whether a table is indexed by token ids, or, for a large table, by values computed from them."""
    if ids in model.graph.inputs:
        return True
    if math.prod(shape_of(table)) < _LARGE_TABLE:
        return False
    pending, seen = [ids], set()
    while pending:
        value = pending.pop()
        if value.name == "input_ids":
            return True
        node = value.producer()
        # Positions are computed from the shape of the token ids.
        if node is not None and node.op_type != "Shape" and node not in seen:
            seen.add(node)
            pending.extend(item for item in node.inputs if item is not None)
    return False


def linear_inputs(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """The input, the weight and the bias of a Linear node."""
    x, weight = node.inputs[:2]
    if x is None or weight is None:
        raise ValueError(f"Linear node {node.name} lacks an input")
    return x, weight, node.inputs[2] if len(node.inputs) > 2 else None


def _integers(graph: ir.Graph, name: str, blocks: Blocks, store: Store) -> ir.Value:
    """The integers of blocks, uint8 (rows, blocks, block_size * bits / 8)."""
    if blocks.kept_bits < blocks.bits:
        return add_initializer(graph, name, packed(blocks.packed, blocks.kept_bits, blocks.bits))
    value = add_initializer(graph, name, blocks.packed)
    store(value)
    return value


def _rows(graph: ir.Graph, name: str, blocks: Blocks, store: Store) -> ir.Value:
    """The integers of blocks as a table of rows, uint8 (rows, blocks * block_size * bits / 8)."""
    shared = blocks.packed.reshape(len(blocks.packed), -1)
    return _integers(graph, name, replace_fields(blocks, packed=shared), store)


def _factors(graph: ir.Graph, node: ir.Node, name: str, blocks: Blocks, store: Store) -> tuple[ir.Value, ir.Value]:
    """The scales and the zero points of blocks."""
    zero_points = add_initializer(graph, f"{name}.zero_points", blocks.zero_points)
    store(zero_points)
    return _scales(graph, node, name, blocks.scales, store), zero_points


def _scales(graph: ir.Graph, node: ir.Node, name: str, scales: NDArray[np.float32], store: Store) -> ir.Value:
    """Scales as the operators read them, float32; stored in float16 where that changes none."""
    # Numbers that are too large become infinite, which is a change.
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    if not np.array_equal(halves, scales):
        wide = add_initializer(graph, f"{name}.scales", scales)
        store(wide)
        return wide
    stored = add_initializer(graph, f"{name}.scales", halves)
    store(stored)
    return widened(graph, node, stored)


def _finish(graph: ir.Graph, node: ir.Node, product: ir.Value, bias: ir.Value | None) -> None:
    if bias is not None:
        set_type(product, node.outputs[0])
        product = insert(graph, node, "Add", [product, bias]).outputs[0]
    replace(node.outputs[0], product)
