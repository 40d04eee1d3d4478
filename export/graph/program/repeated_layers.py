"""Repeats traced layers in a graph, in the place of those that compute the same with other weights."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.models.alike_layers import AlikeLayers

# Where torch.onnx writes which modules a node comes from.
_SCOPES = "pkg.torch.onnx.name_scopes"
# What torch.export calls the size of a tensor that depends on numbers, such as of the places that are not zero.
_FOUND = re.compile(r"\bu\d+\b")


class IrregularLayersError(Exception):
    """Which nodes are a layer's, or what it reads, is not as simple as repeating it needs."""


def repeat_layers(graph: ir.Graph, module: torch.nn.Module, alike: AlikeLayers) -> None:
    """Add the layers that were left out of a trace: the nodes of those that they are like, with their own weights.

    Args:
        graph: traced with `AlikeLayers.shortened`; changed in place, and of no use after an error.
        module: that was traced, with all of its layers again.
        alike: of its layers.

    Raises:
        IrregularLayersError: layers cannot be told apart, or exchange more than one value.
    """
    path = next(name for name, item in module.named_modules() if item is alike.layers)
    traced = _traced_layers(graph, path, alike.traced)
    weights = _Weights(graph, alike, path)
    last = traced[-1]
    others = [use for use in last.result.uses() if use.node not in last.nodes]
    result, before = last.result, last.nodes[-1]
    for index in range(alike.traced, len(alike.layers)):
        first = alike.first_alike[index]
        values = {**weights.of(traced[first], index), traced[first - 1].result: result}
        copy = [_copied(node, values, index) for node in traced[first].nodes]
        graph.insert_after(before, copy)
        result, before = values[traced[first].result], copy[-1]
    for use in others:
        use.node.replace_input_with(use.idx, result)
    _give_instead(graph, last.result, result)


def _give_instead(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Have the graph return another value where it returned `old`, by the same name."""
    for place, value in enumerate(graph.outputs):
        if value is old:
            old.name, new.name = new.name, old.name
            graph.outputs[place] = new


@dataclass(frozen=True)
class _Layer:
    """The nodes of a layer.

    Attributes:
        index: of the layer.
        nodes: all that stand between its first and the first of the next layer, in order.
        result: the one value of it that others read.
        constants: what it reads that is an initializer.
    """

    index: int
    nodes: Sequence[ir.Node]
    result: ir.Value
    constants: Sequence[ir.Value]


def _traced_layers(graph: ir.Graph, path: str, count: int) -> list[_Layer]:
    nodes, of_layer = list(graph), re.compile(rf"'{re.escape(path)}\.(\d+)['.]")
    places: list[list[int]] = [[] for _ in range(count)]
    for place, node in enumerate(nodes):
        scope = of_layer.search(node.metadata_props.get(_SCOPES, ""))
        if scope is not None:
            places[int(scope[1])].append(place)
    if not all(places):
        raise IrregularLayersError
    ends = [*(own[0] for own in places[1:]), places[-1][-1] + 1]
    if any(own[-1] >= end for own, end in zip(places, ends, strict=True)):
        raise IrregularLayersError
    parts = [nodes[own[0] : end] for own, end in zip(places, ends, strict=True)]
    everywhere = _computed_of_constants(nodes)
    results = [_result(part, everywhere) for part in parts]
    before_all = {value for node in nodes[: places[0][0]] for value in node.outputs} | {*graph.inputs, *everywhere}
    layers = []
    for index, (part, result) in enumerate(zip(parts, results, strict=True)):
        own = {value for node in part for value in node.outputs}
        known = before_all | own | set(results[max(0, index - 1) : index])
        others = [value for value in _read(part) if value not in known]
        if not all(value.is_initializer() for value in others) or any(
            _has_graphs(node) or _has_found_sizes(node) for node in part
        ):
            raise IrregularLayersError
        layers.append(_Layer(index, part, result, others))
    _check_chain(layers)
    return layers


def _check_chain(layers: Sequence[_Layer]) -> None:
    """Refuse layers whose results are read by others than the next layer."""
    for layer, following in itertools.pairwise(layers):
        readers = {use.node for use in layer.result.uses()}
        if layer.result.is_graph_output() or not readers <= {*layer.nodes, *following.nodes}:
            raise IrregularLayersError


def _read(nodes: Sequence[ir.Node]) -> Iterable[ir.Value]:
    """What nodes read, each once."""
    return dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)


def _computed_of_constants(nodes: Sequence[ir.Node]) -> set[ir.Value]:
    """What is computed from Constant nodes alone, which layers share."""
    found: set[ir.Value] = set()
    for node in nodes:
        if all(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _result(nodes: Sequence[ir.Node], everywhere: set[ir.Value]) -> ir.Value:
    inside, values = set(nodes), [value for node in nodes for value in node.outputs if value not in everywhere]
    read = [value for value in values if value.is_graph_output() or any(use.node not in inside for use in value.uses())]
    if len(read) != 1:
        raise IrregularLayersError
    return read[0]


def _has_graphs(node: ir.Node) -> bool:
    return any(item.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for item in node.attributes.values())


def _has_found_sizes(node: ir.Node) -> bool:
    """Whether an output has a size that its numbers decide, of which every layer has its own."""
    return any(_FOUND.search(str(dim)) for value in node.outputs for dim in value.shape or ())


class _Weights:
    """Finds the weights of a layer that correspond to those of one that it is like."""

    def __init__(self, graph: ir.Graph, alike: AlikeLayers, path: str) -> None:
        self._graph, self._alike, self._path = graph, alike, path

    def of(self, layer: _Layer, index: int) -> dict[ir.Value, ir.Value]:
        """By the constants that a traced layer reads, those of layer `index`."""
        return {value: self._corresponding(value, layer.index, index) for value in layer.constants}

    def _corresponding(self, value: ir.Value, first: int, index: int) -> ir.Value:
        before, name = f"{self._path}.{first}.", str(value.name)
        inside = name.removeprefix(before)
        tensor = _tensors(self._alike.layers[index]).get(inside) if inside != name else None
        if tensor is None:
            pairs = zip(self._alike.constants[first], self._alike.constants[index], strict=True)
            tensor = next((own for like, own in pairs if _is_at(value, like)), None)
        if tensor is None and _size(value) == 1:
            # Numbers are the same in layers that are alike.
            return value
        if tensor is None:
            raise IrregularLayersError
        if _is_at(value, tensor):
            return value
        other = f"{self._path}.{index}.{inside}" if inside != name else f"{name}.{index}"
        return self._initializer(value, tensor, other)

    def _initializer(self, like: ir.Value, tensor: torch.Tensor, name: str) -> ir.Value:
        if name in self._graph.initializers or like.const_value is None:
            raise IrregularLayersError
        made: ir.TensorProtocol = type(like.const_value)(tensor, name=name)  # type: ignore[call-arg]
        value = ir.Value(name=name, shape=like.shape, type=like.type, const_value=made)
        self._graph.initializers[name] = value
        return value


def _tensors(layer: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    return {**dict(layer.named_parameters()), **dict(layer.named_buffers())}


def _is_at(value: ir.Value, tensor: torch.Tensor) -> bool:
    """Whether an initializer holds the numbers of a tensor because they lie in the same place."""
    raw = getattr(value.const_value, "raw", None)
    return (
        isinstance(raw, torch.Tensor)
        and raw.data_ptr() == tensor.data_ptr()
        and (raw.shape, raw.stride(), raw.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)
    )


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.size


def _copied(node: ir.Node, values: dict[ir.Value, ir.Value], index: int) -> ir.Node:
    """A copy of a node for layer `index`; what it gives is added to `values`."""
    outputs = [
        ir.Value(name=f"{value.name}.of_layer_{index}", shape=value.shape, type=value.type) for value in node.outputs
    ]
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else values.get(value, value) for value in node.inputs],
        node.attributes,
        overload=node.overload,
        outputs=outputs,
        version=node.version,
        name=f"{node.name}.of_layer_{index}",
    )
    values.update(zip(node.outputs, outputs, strict=True))
    return copy
