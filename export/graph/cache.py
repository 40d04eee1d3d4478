"""Adds the key/value cache to a traced graph, as inputs and outputs of its attention nodes, and describes a cache."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from triform.export.graph.nodes import MICROSOFT, insert, nodes, replace
from triform.models.spec import GraphSpec, LayerCache
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo


def add_cache(model: ir.Model, layers: Sequence[LayerCache]) -> None:
    """Give the attention nodes the inputs past_key_values.{i} and the outputs present.{i}, in the order they run.

    Args:
        model: changed in place.
        layers: the geometry of each layer's buffers.

    Raises:
        ValueError: the numbers of attention nodes and of layers differ.
    """
    graph = model.graph
    for index, (node, layer) in enumerate(zip(nodes(graph, "GroupQueryAttention"), layers, strict=True)):
        shape = ("batch", layer.num_key_value_heads, "capacity", layer.head_dim)
        past = [_value(f"past_key_values.{index}.{part}", shape) for part in ("key", "value")]
        graph.inputs.extend(past)
        attention = insert(
            graph,
            node,
            node.op_type,
            [*node.inputs[:3], *past, *node.inputs[5:]],
            domain=MICROSOFT,
            attributes={name: item.value for name, item in node.attributes.items()},
            outputs=3,
        )
        replace(node.outputs[0], attention.outputs[0])
        for output, part in zip(attention.outputs[1:], ("key", "value"), strict=True):
            output.name, output.shape, output.dtype = f"present.{index}.{part}", ir.Shape(shape), ir.DataType.FLOAT
            graph.outputs.append(output)
        graph.remove(node, safe=True)


def _value(name: str, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def cache_info(spec: GraphSpec) -> CacheInfo:
    """The cache of a decoder's graph."""
    return CacheInfo(
        "float32",
        [LayerCacheInfo(layer.num_key_value_heads, layer.head_dim) for layer in spec.cache],
        [StateInfo(state.kind, "float32", list(state.shape)) for state in spec.states],
    )
