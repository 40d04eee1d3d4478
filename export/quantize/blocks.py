"""Linear nodes to operators ONNX Runtime has: in float32, or blockwise quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.export.graph.linear import LINEAR, matrix
from triform.export.graph.nodes import MICROSOFT, add_initializer, describe, insert, nodes, replace, sweep
from triform.export.quantize.blockwise import Blocks, quantize_matrix

# Products with fewer columns than this are routers and the like: small, and decisive.
_FEWEST_COLUMNS = 16
# Numbers of a table of hashes, which no table of positions or token types reaches.
_LARGE_TABLE = 2**20
# The block size of products whose error reaches furthest: into the attention, and straight into the logits.
SENSITIVE_BLOCK_SIZE = 32


@dataclass(frozen=True)
class Scheme:
    """How the weights of a graph are quantized.

    Attributes:
        bits: 4 or 8.
        block_size: weights that share a scale, in most products.
        accuracy_level: of MatMulNBits; 4 computes with 8-bit activations, 1 with float32.
    """

    bits: int
    block_size: int
    accuracy_level: int

    def block_size_of(self, linear: ir.Node) -> int:
        """Smaller blocks for the products that feed attention and for the language-model head."""
        sensitive = _reaches_attention(linear) or linear.outputs[0].is_graph_output()
        return min(self.block_size, SENSITIVE_BLOCK_SIZE) if sensitive else self.block_size


def _reaches_attention(linear: ir.Node) -> bool:
    result = linear.outputs[0]
    users = [use.node for use in result.uses()]
    users += [use.node for node in users if node.op_type == "Split" for out in node.outputs for use in out.uses()]
    return any(node.op_type == "GroupQueryAttention" for node in users)


def lower_to_float(model: ir.Model) -> None:
    """Every Linear becomes a float32 product that reads the weight as PyTorch keeps it, so none is stored twice."""
    for node in nodes(model.graph, LINEAR):
        x, weight, bias = _inputs(node)
        made = insert(
            model.graph, node, "FusedMatMul", [x, weight], domain=MICROSOFT, attributes={"transB": 1}
        ).outputs[0]
        _finish(model.graph, node, made, bias)
    sweep(model)


def lower_to_blocks(model: ir.Model, scheme: Scheme, importance: Mapping[str, torch.Tensor]) -> int:
    """Every Linear, and the token embedding, becomes blockwise quantized.

    A tied embedding and head share one stored matrix: both operators read the same bytes.

    Args:
        model: changed in place.
        scheme: bits, block sizes and accuracy level.
        importance: by weight name, what `measure.py` found.

    Returns:
        how many matrices were quantized.
    """
    done: dict[int, Blocks] = {}
    count = 0
    for node in nodes(model.graph, LINEAR):
        _, weight, _ = _inputs(node)
        rows = matrix(weight)
        if rows.shape[0] < _FEWEST_COLUMNS:
            continue
        blocks = quantize_matrix(rows, importance.get(str(weight.name)), scheme.bits, scheme.block_size_of(node))
        done[id(weight)] = blocks
        lower_product(model.graph, node, blocks, scheme.accuracy_level)
        count += 1
    lower_to_float(model)
    return count + lower_embeddings(model, scheme, done)


def lower_product(graph: ir.Graph, node: ir.Node, blocks: Blocks, accuracy_level: int) -> None:
    """One Linear becomes a MatMulNBits of these blocks."""
    x, weight, bias = _inputs(node)
    attributes = {
        "K": matrix(weight).shape[1], "N": matrix(weight).shape[0], "bits": blocks.bits,
        "block_size": blocks.block_size, "accuracy_level": accuracy_level,
    }  # fmt: skip
    inputs = [x, *_constants(graph, str(weight.name), blocks), None, bias][: 6 if bias is not None else 4]
    made = insert(graph, node, "MatMulNBits", inputs, domain=MICROSOFT, attributes=attributes)
    replace(node.outputs[0], made.outputs[0])


def lower_embeddings(model: ir.Model, scheme: Scheme, done: Mapping[int, Blocks]) -> int:
    """Token embeddings become blockwise quantized; tables looked up by anything else, or small ones, stay as they are.

    Args:
        model: changed in place.
        scheme: bits and block sizes.
        done: what was quantized already, by the identity of the value: a tied head's blocks are shared.

    Returns:
        how many matrices were quantized.
    """
    count = 0
    for node in nodes(model.graph, "Gather"):
        table, ids = node.inputs
        if table is None or ids is None or not table.is_initializer() or not _looked_up_by_tokens(model, table, ids):
            continue
        width = matrix(table).shape[1]
        shared = done.get(id(table))
        if shared is None:
            shared = quantize_matrix(matrix(table), None, scheme.bits, min(scheme.block_size, SENSITIVE_BLOCK_SIZE))
            count += 1
        if width % shared.block_size:
            continue
        flat = Blocks(
            shared.packed.reshape(len(shared.packed), -1), shared.scales, shared.zero_points, shared.bits,
            shared.block_size,
        )  # fmt: skip
        data, scales, zero_points = _constants(model.graph, f"{table.name}.rows", flat)
        attributes = {"bits": flat.bits, "block_size": flat.block_size, "gather_axis": 0, "quantize_axis": 1}
        made = insert(
            model.graph, node, "GatherBlockQuantized", [data, ids, scales, zero_points], domain=MICROSOFT,
            attributes=attributes,
        )  # fmt: skip
        replace(node.outputs[0], made.outputs[0])
    sweep(model)
    return count


def _looked_up_by_tokens(model: ir.Model, table: ir.Value, ids: ir.Value) -> bool:
    """Whether a table's rows are chosen by token ids: as they are or, of a large table, by what is computed of them."""
    if ids in model.graph.inputs:
        return True
    if matrix(table).numel() < _LARGE_TABLE:
        return False
    pending, seen = [ids], set()
    while pending:
        value = pending.pop()
        if value.name == "input_ids":
            return True
        node = value.producer()
        # Positions come from how many tokens there are.
        if node is not None and node.op_type != "Shape" and node not in seen:
            seen.add(node)
            pending.extend(one for one in node.inputs if one is not None)
    return False


def _inputs(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    x, weight = node.inputs[:2]
    if x is None or weight is None:
        raise ValueError(f"Linear node {node.name} lacks an input")
    return x, weight, node.inputs[2] if len(node.inputs) > 2 else None


def _constants(graph: ir.Graph, name: str, blocks: Blocks) -> tuple[ir.Value, ir.Value, ir.Value]:
    return (
        add_initializer(graph, f"{name}.blocks", blocks.packed),
        add_initializer(graph, f"{name}.scales", blocks.scales),
        add_initializer(graph, f"{name}.zero_points", blocks.zero_points),
    )


def _finish(graph: ir.Graph, node: ir.Node, product: ir.Value, bias: ir.Value | None) -> None:
    if bias is not None:
        describe(product, node.outputs[0])
        product = insert(graph, node, "Add", [product, bias]).outputs[0]
    replace(node.outputs[0], product)
