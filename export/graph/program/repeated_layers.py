"""Repeats traced layers in a graph, in the place of those that compute the same with other weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.models.alike_layers import AlikeLayers
from triform.models.spec import GraphSpec

# Where torch.onnx writes which modules a node comes from.
_SCOPES = "pkg.torch.onnx.name_scopes"
# What torch.export calls the size of a tensor that depends on numbers, such as of the places that are not zero.
_FOUND = re.compile(r"\bu\d+\b")


class IrregularLayersError(Exception):
    """Which nodes are a layer's, or what it reads, is not as simple as repeating it needs."""


def repeat_layers(graph: ir.Graph, spec: GraphSpec, alike: AlikeLayers) -> None:
    """Add the layers that were left out of a trace: the nodes of those that they are like, with their own weights.

    Args:
        graph: traced with `AlikeLayers.shortened`; changed in place, and of no use after an error.
        spec: that was traced; its module has all of its layers again.
        alike: of its layers.

    Raises:
        IrregularLayersError: layers cannot be told apart, or exchange more than one value.
    """
    path = next(name for name, item in spec.module.named_modules() if item is alike.layers)
    parts = _parts(graph, path, alike.traced)
    copied = _copied_layers(graph, parts, {alike.first_alike[index] for index in alike.left_out})
    weights, inputs = _Weights(graph, alike, path), _Inputs(graph, spec, alike)
    result, before = _result(parts.layers[-1], parts.of_no_layer), parts.layers[-1][-1]
    last, others = result, [use for use in result.uses() if use.node not in parts.layers[-1]]
    for index in alike.left_out:
        layer = copied[alike.first_alike[index]]
        values = {**weights.of(layer, index), **inputs.of(layer, index), layer.given: result}
        copy = [_copied(node, values, index) for node in layer.nodes]
        graph.insert_after(before, copy)
        result, before = values[layer.result], copy[-1]
    for use in others:
        use.node.replace_input_with(use.idx, result)
    _give_instead(graph, last, result)


def _give_instead(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Have the graph return another value where it returned `old`, by the same name."""
    for place, value in enumerate(graph.outputs):
        if value is old:
            old.name, new.name = new.name, old.name
            graph.outputs[place] = new


@dataclass(frozen=True)
class _Parts:
    """The nodes of a graph by layer.

    Attributes:
        layers: of each, all nodes that stand between its first and the first of the next layer, in order.
        of_no_layer: the values that all layers share, see `_shared`.
    """

    layers: Sequence[Sequence[ir.Node]]
    of_no_layer: Set[ir.Value]


@dataclass(frozen=True)
class _Layer:
    """The nodes of a layer that is copied.

    Attributes:
        index: of the layer.
        nodes: in order.
        given: the one value of the layer before that it reads. What it reads of layers further back its copies read
            too: layers are alike only if that is the same value to all.
        result: the one value of it that others read.
        constants: what it reads that is an initializer.
        inputs: what it reads that is an input of the graph.
    """

    index: int
    nodes: Sequence[ir.Node]
    given: ir.Value
    result: ir.Value
    constants: Sequence[ir.Value]
    inputs: Sequence[ir.Value]


def _parts(graph: ir.Graph, path: str, count: int) -> _Parts:
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
    return _Parts(parts, _shared(nodes, {*graph.inputs, *_made(nodes[: places[0][0]])}))


def _shared(nodes: Sequence[ir.Node], before: Set[ir.Value]) -> Set[ir.Value]:
    """What was computed before all layers, and what is computed of that without weights.

    The first layer that needs a product of sizes computes it for all.
    """
    found = set(before)
    for node in nodes:
        if all(value is None or value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _copied_layers(graph: ir.Graph, parts: _Parts, indices: Collection[int]) -> dict[int, _Layer]:
    """The layers of these indices."""
    made_in = {value: index for index, part in enumerate(parts.layers) for value in _made(part)}
    if any(made_in.get(value, len(parts.layers) - 1) < len(parts.layers) - 1 for value in graph.outputs):
        raise IrregularLayersError
    layers = {}
    for index in indices:
        part = parts.layers[index]
        if any(_has_graphs(node) or _has_found_sizes(node) for node in part):
            raise IrregularLayersError
        read = _read(part)
        given = [value for value in read if made_in.get(value) == index - 1 and value not in parts.of_no_layer]
        if len(given) != 1:
            raise IrregularLayersError
        constants = [value for value in read if value.is_initializer()]
        inputs = [value for value in read if value.is_graph_input()]
        layers[index] = _Layer(index, part, given[0], _result(part, parts.of_no_layer), constants, inputs)
    return layers


def _made(nodes: Iterable[ir.Node]) -> Iterator[ir.Value]:
    return (value for node in nodes for value in node.outputs)


def _read(nodes: Sequence[ir.Node]) -> Sequence[ir.Value]:
    """What nodes read, each once."""
    return list(dict.fromkeys(value for node in nodes for value in node.inputs if value is not None))


def _result(nodes: Sequence[ir.Node], of_no_layer: Set[ir.Value]) -> ir.Value:
    inside = set(nodes)
    values = [value for value in _made(nodes) if value not in of_no_layer]
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


class _Inputs:
    """Finds the inputs of a graph of which every layer has its own."""

    def __init__(self, graph: ir.Graph, spec: GraphSpec, alike: AlikeLayers) -> None:
        self._alike = alike
        self._pairs = [(value, item.example) for value, item in zip(graph.inputs, spec.inputs, strict=True)]

    def of(self, layer: _Layer, index: int) -> dict[ir.Value, ir.Value]:
        """By the inputs that a traced layer reads, those of layer `index`; without those that all layers share."""
        found = {}
        for value in layer.inputs:
            example = next(example for other, example in self._pairs if other is value)
            pairs = zip(self._alike.constants[layer.index], self._alike.constants[index], strict=True)
            own = next((own for like, own in pairs if like is example), None)
            if own is not None:
                found[value] = self._input(own)
            elif all(use.node in layer.nodes for use in value.uses()):
                # Another layer may have one of its own.
                raise IrregularLayersError
        return found

    def _input(self, example: torch.Tensor) -> ir.Value:
        value = next((value for value, other in self._pairs if other is example), None)
        if value is None:
            raise IrregularLayersError
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
