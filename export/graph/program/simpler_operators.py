"""Writes operators of a traced program as simpler ones, as PyTorch's decompositions do, but without a second trace."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

_aten = torch.ops.aten


def simplify(graph: Graph) -> bool:
    """Replace casts, shapes and changes in place by functional operators, and drop what does nothing.

    What cannot be replaced with certainty, such as a change of a part of a tensor, stays as it is. Returns whether
    nothing of this kind is left.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and (rule := _RULES.get(node.target)) is not None:
            rule(graph, node)
    graph.eliminate_dead_code()
    return not any(node.target in _RULES or _changes_tensors(node.target) for node in graph.nodes)


def _changes_tensors(target: Any) -> bool:
    """Whether a node with this target changes one of its arguments."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _drop(graph: Graph, node: Node) -> None:
    if node.users:
        node.replace_all_uses_with(_tensor(node))
    graph.erase_node(node)


def _copy(_graph: Graph, node: Node) -> None:
    # Where it is no copy, what is changed in place is another tensor.
    if not any(_changes_tensors(user.target) for user in node.users):
        _become(node, _aten.clone.default, (node.args[0],), memory_format=torch.contiguous_format)


def _drop_dropout(graph: Graph, node: Node) -> None:
    if not node.args[2]:
        _drop(graph, node)


def _cast(graph: Graph, node: Node) -> None:
    dtype = node.meta["val"].dtype
    if _tensor(node).meta["val"].dtype == dtype:
        _drop(graph, node)
    else:
        _become(node, _aten._to_copy.default, (node.args[0],), dtype=dtype)


def _transpose(_graph: Graph, node: Node) -> None:
    _become(node, _aten.permute.default, (node.args[0], list(reversed(range(node.meta["val"].dim())))))


def _renamed(target: Any) -> Callable[[Graph, Node], None]:
    return lambda _graph, node: _become(node, target, node.args)


def _subtracted(graph: Graph, node: Node) -> None:
    """A number minus a tensor, which may be of integers where the number is a float."""
    tensor, number, *rest = node.args
    if (rest and rest[0] != 1) or node.kwargs:
        return
    value, dtype = _tensor(node).meta["val"], node.meta["val"].dtype
    with graph.inserting_before(node):
        if value.dtype != dtype:
            tensor = graph.call_function(_aten._to_copy.default, (tensor,), {"dtype": dtype})
            tensor.meta["val"] = value.to(dtype)
        negative = graph.call_function(_aten.neg.default, (tensor,))
    negative.meta["val"] = node.meta["val"]
    _become(node, _aten.add.Tensor, (negative, number))


def _batch_norm(graph: Graph, node: Node) -> None:
    tensor, weight, bias, mean, variance, training, momentum, epsilon, _ = node.args
    if training:
        return
    with graph.inserting_before(node):
        arguments = (tensor, weight, bias, mean, variance, momentum, epsilon)
        norm = graph.call_function(_aten._native_batch_norm_legit_no_training.default, arguments)
    norm.meta["val"] = (node.meta["val"], None, None)
    _become(node, operator.getitem, (norm, 0))


def _chunk(_graph: Graph, node: Node) -> None:
    axis = node.args[2] if len(node.args) > 2 else 0
    size = node.meta["val"][0].shape[axis]
    if isinstance(size, int):
        _become(node, _aten.split.Tensor, (node.args[0], size, axis))


def _view(graph: Graph, node: Node) -> None:
    """Name the sizes that are known, held by an earlier node, or the tensor's own; PyTorch can find one other."""
    held = _held_sizes(graph, node)
    sizes = [size if isinstance(size, int) else _size(graph, node, size, held) for size in node.meta["val"].shape]
    if sizes.count(-1) <= 1:
        _become(node, _aten.view.default, (_contiguous(graph, node), sizes))


def _size(graph: Graph, node: Node, size: torch.SymInt, held: dict[Any, Node]) -> Node | int:
    if (earlier := held.get(size.node.expr)) is not None:
        return earlier
    tensor = _tensor(node)
    for axis, own in enumerate(tensor.meta["val"].shape):
        if isinstance(own, torch.SymInt) and own.node.expr == size.node.expr:
            with graph.inserting_before(node):
                named = graph.call_function(_aten.sym_size.int, (tensor, axis))
            named.meta["val"] = own
            return named
    return -1


def _reshape(graph: Graph, node: Node) -> None:
    # ONNX's operator for reshape reads a size of 0 as one to be kept; that of views does not.
    _become(node, _aten.view.default, (_contiguous(graph, node), node.args[1]))


def _contiguous(graph: Graph, node: Node) -> Node:
    """A copy of the node's tensor that can be viewed in any shape."""
    tensor = _tensor(node)
    with graph.inserting_before(node):
        copy = graph.call_function(_aten.clone.default, (tensor,), {"memory_format": torch.contiguous_format})
    copy.meta["val"] = tensor.meta["val"].clone(memory_format=torch.contiguous_format)
    return copy


def _held_sizes(graph: Graph, node: Node) -> dict[Any, Node]:
    held: dict[Any, Node] = {}
    for earlier in graph.nodes:
        if earlier is node:
            break
        if isinstance(value := earlier.meta.get("val"), torch.SymInt):
            held.setdefault(value.node.expr, earlier)
    return held


def _out_of_place(functional: Any) -> Callable[[Graph, Node], None]:
    """The rule for a change of a whole tensor in place: what comes after it reads the result of `functional`."""

    def rule(_graph: Graph, node: Node) -> None:
        changed = _tensor(node)
        users = sorted(changed.users)
        place = users.index(node)
        views = any(_shares_memory(other) for other in [changed, *users[:place]])
        if views or node.meta["val"].dtype != changed.meta["val"].dtype:
            return
        _become(node, functional, node.args)
        for later in users[place + 1 :]:
            later.replace_input_with(changed, node)

    return rule


def _shares_memory(node: Node) -> bool:
    """Whether what a node gives may be another node's tensor, or a part of it."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is not operator.getitem or _shares_memory(_tensor(node))
    return any(result.alias_info is not None for result in node.target._schema.returns)


def _become(node: Node, target: Any, args: tuple[Any, ...], **options: Any) -> None:
    node.target, node.args, node.kwargs = target, args, options


def _tensor(node: Node) -> Node:
    tensor = node.args[0]
    assert isinstance(tensor, Node)
    return tensor


_RULES: dict[Any, Callable[[Graph, Node], None]] = {
    _aten._assert_tensor_metadata.default: _drop,
    _aten.detach_.default: _drop,
    _aten.contiguous.default: _copy,
    _aten.dropout.default: _drop_dropout,
    _aten.to.dtype: _cast,
    _aten.to.dtype_layout: _cast,
    _aten.to.device: _cast,
    _aten.numpy_T.default: _transpose,
    _aten.min.other: _renamed(_aten.minimum.default),
    _aten.__and__.Tensor: _renamed(_aten.bitwise_and.Tensor),
    _aten.__or__.Tensor: _renamed(_aten.bitwise_or.Tensor),
    _aten.max.other: _renamed(_aten.maximum.default),
    _aten.rsub.Scalar: _subtracted,
    _aten.batch_norm.default: _batch_norm,
    _aten.chunk.default: _chunk,
    _aten.flatten.using_ints: _view,
    _aten.unflatten.int: _view,
    _aten.reshape.default: _reshape,
    _aten.add_.Tensor: _out_of_place(_aten.add.Tensor),
    _aten.mul_.Tensor: _out_of_place(_aten.mul.Tensor),
    _aten.div_.Tensor: _out_of_place(_aten.div.Tensor),
}
