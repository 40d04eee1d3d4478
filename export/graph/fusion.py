"""Removes what tracing adds to a model's graph, and fuses operators.

Each pass is exact: it changes which operators run, not their results.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import onnx_ir as ir
from onnxscript.optimizer import fold_constants

from triform.export.graph.linear import find_linears, pack_linears
from triform.export.graph.nodes import (
    MICROSOFT,
    attribute,
    constant,
    insert,
    nodes,
    only_user,
    producer,
    replace,
    same_shape,
    set_type,
    sweep,
)
from triform.export.graph.position_tables import compute_sinusoids


def fuse(model: ir.Model, kind_of: Callable[[ir.Value], Hashable] = lambda _: None) -> None:
    """Run every pass. The order matters: passes work on what earlier passes leave.

    Args:
        model: changed in place.
        kind_of: of a weight; products by weights of different kinds are not packed into one.
    """
    # The size limit keeps weights out: only slice bounds, shapes and the like are folded.
    fold_constants(
        model, onnx_shape_inference=False, input_size_limit=1024, output_size_limit=1024, should_fold=_may_fold
    )
    cancel_layout_changes(model)
    find_linears(model)
    join_slices(model)
    normalize_before_transposing(model)
    cancel_layout_changes(model)
    pack_linears(model, kind_of)
    fuse_silu(model)
    lower_rms_norm(model)
    fuse_skip_norms(model)
    feed_packed_qkv(model)
    compute_sinusoids(model)
    sweep(model)


def _may_fold(node: ir.Node) -> bool | None:
    """No to the transpose of a matrix that is multiplied by, which `find_linears` undoes; else by the sizes.

    onnxscript would transpose matrices of any size, into copies without their names.
    """
    users = [use.node.op_type for output in node.outputs for use in output.uses()]
    is_weight = node.op_type == "Transpose" and list(attribute(node, "perm", [])) == [1, 0]
    return False if is_weight and set(users) == {"MatMul"} else None


def cancel_layout_changes(model: ir.Model) -> None:
    """Remove Reshape and Transpose nodes that cancel each other."""
    changed = True
    while changed:
        changed = False
        for node in nodes(model.graph, "Transpose", "Reshape", "Identity"):
            changed |= _cancel(model.graph, node)
        sweep(model)


def _cancel(graph: ir.Graph, node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or (not result.uses() and not result.is_graph_output()):
        return False
    if node.op_type == "Identity" and not result.is_graph_output():
        replace(result, source)
        return True
    if node.op_type == "Transpose":
        return _cancel_transpose(graph, node, source, result)
    return node.op_type == "Reshape" and _cancel_reshape(node, source, result)


def _cancel_transpose(graph: ir.Graph, node: ir.Node, source: ir.Value, result: ir.Value) -> bool:
    perm = list(attribute(node, "perm"))
    if perm == sorted(perm):
        replace(result, source)
        return True
    inner = producer(source, "Transpose")
    if inner is None:
        return False
    before = list(attribute(inner, "perm"))
    merged = insert(graph, node, "Transpose", [inner.inputs[0]], attributes={"perm": [before[axis] for axis in perm]})
    replace(result, merged.outputs[0])
    return True


def _cancel_reshape(node: ir.Node, source: ir.Value, result: ir.Value) -> bool:
    if same_shape(source, result):
        replace(result, source)
        return True
    inner = producer(source, "Reshape")
    if inner is None or inner.inputs[0] is None:
        return False
    node.replace_input_with(0, inner.inputs[0])
    return True


def join_slices(model: ir.Model) -> None:
    """Remove a Concat of all the slices of one value in order, as partial rotary embeddings leave them."""
    for node in nodes(model.graph, "Slice"):
        if node.inputs[0] is not None and same_shape(node.inputs[0], node.outputs[0]):
            replace(node.outputs[0], node.inputs[0])
    for node in nodes(model.graph, "Concat"):
        whole = _whole_of(node)
        if whole is not None and same_shape(whole, node.outputs[0]):
            replace(node.outputs[0], whole)
    sweep(model)


def _whole_of(concat: ir.Node) -> ir.Value | None:
    pieces = [producer(value, "Slice", "Split") for value in concat.inputs]
    if any(piece is None for piece in pieces):
        return None
    sources = {id(piece.inputs[0]) for piece in pieces if piece is not None}
    if len(sources) != 1 or pieces[0] is None:
        return None
    if pieces[0].op_type == "Split":
        return pieces[0].inputs[0] if tuple(concat.inputs) == tuple(pieces[0].outputs) else None
    end = 0
    for piece in pieces:
        span = _last_axis_span(piece)
        if span is None or span[0] != end:
            return None
        end = span[1]
    return pieces[0].inputs[0]


def _last_axis_span(piece: ir.Node | None) -> tuple[int, int] | None:
    """Start and end of a Slice along its last axis; None for any other slice."""
    if piece is None or piece.op_type != "Slice" or piece.inputs[0] is None or piece.inputs[0].shape is None:
        return None
    values = [constant(value) for value in piece.inputs[1:]]
    if any(value is None or value.size != 1 for value in values) or len(values) < 3:
        return None
    numbers = [int(value.item()) for value in values if value is not None]
    start, end, axis = numbers[:3]
    rank, width = len(piece.inputs[0].shape), piece.inputs[0].shape[-1]
    if axis % rank != rank - 1 or not isinstance(width, int) or (len(numbers) > 3 and numbers[3] != 1):
        return None
    return start % width if start < 0 else start, min(end, width) if end >= 0 else end + width


def normalize_before_transposing(model: ir.Model) -> None:
    """Move a norm over the last axis before a Transpose that keeps this axis last.

    Norms of queries and keys stand between the transposes that split and merge heads; once moved, these can cancel.
    """
    for node in nodes(model.graph, "RMSNorm", "LayerNormalization"):
        transpose = producer(node.inputs[0], "Transpose")
        if transpose is None or only_user(transpose.outputs[0]) is not node:
            continue
        perm = list(attribute(transpose, "perm"))
        last = perm[-1] == len(perm) - 1 and attribute(node, "axis", -1) in (-1, len(perm) - 1)
        source = transpose.inputs[0]
        if not last or source is None:
            continue
        attributes = {name: item.value for name, item in node.attributes.items()}
        norm = insert(
            model.graph, node, node.op_type, [source, *node.inputs[1:]], domain=node.domain, attributes=attributes
        )
        set_type(norm.outputs[0], source)
        moved = insert(model.graph, node, "Transpose", [norm.outputs[0]], attributes={"perm": perm})
        replace(node.outputs[0], moved.outputs[0])
    sweep(model)


def fuse_silu(model: ir.Model) -> None:
    """Replace x * sigmoid(x) by QuickGelu with alpha 1, the same function in one operator."""
    for node in nodes(model.graph, "Mul"):
        for x, gate in (tuple(node.inputs), tuple(reversed(node.inputs))):
            sigmoid = producer(gate, "Sigmoid")
            if sigmoid is not None and sigmoid.inputs[0] is x:
                fused = insert(model.graph, node, "QuickGelu", [x], domain=MICROSOFT, attributes={"alpha": 1.0})
                replace(node.outputs[0], fused.outputs[0])
                break
    sweep(model)


def lower_rms_norm(model: ir.Model) -> None:
    """Replace the placeholder RMSNorm by ONNX Runtime's SimplifiedLayerNormalization."""
    for node in nodes(model.graph, "RMSNorm"):
        attributes = {"axis": -1, "epsilon": attribute(node, "epsilon"), "stash_type": 1}
        norm = insert(model.graph, node, "SimplifiedLayerNormalization", list(node.inputs), attributes=attributes)
        replace(node.outputs[0], norm.outputs[0])
    sweep(model)


def fuse_skip_norms(model: ir.Model) -> None:
    """Fuse a residual addition and the RMS norm that follows into one operator, which returns both results.

    The same operator for layer norms is not used: on a CPU it takes five times as long as the two it replaces.
    """
    for node in nodes(model.graph, "SimplifiedLayerNormalization"):
        add = producer(node.inputs[0], "Add")
        if add is None or not _is_residual(add):
            continue
        fused = insert(
            model.graph, add, "SkipSimplifiedLayerNormalization", [*add.inputs, *node.inputs[1:]], domain=MICROSOFT,
            attributes={"epsilon": attribute(node, "epsilon", 1e-5)}, outputs=4,
        )  # fmt: skip
        replace(node.outputs[0], fused.outputs[0])
        replace(add.outputs[0], fused.outputs[3])
    sweep(model)


def _is_residual(add: ir.Node) -> bool:
    first, second = add.inputs
    if first is None or second is None or not same_shape(first, second):
        return False
    return first.shape is not None and len(first.shape) == 3


def feed_packed_qkv(model: ir.Model) -> None:
    """Pass the packed q, k and v projection to attention unsplit, if attention is all that uses the parts."""
    for node in nodes(model.graph, "GroupQueryAttention"):
        split = producer(node.inputs[0], "Split")
        if split is None or len(split.outputs) != 3 or tuple(node.inputs[:3]) != tuple(split.outputs):
            continue
        if all(only_user(output) is node for output in split.outputs):
            node.replace_input_with(0, split.inputs[0])
            node.replace_input_with(1, None)
            node.replace_input_with(2, None)
    sweep(model)
