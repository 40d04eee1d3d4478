"""Cuts what computes the keys and values of a source out of a decoder's graph, and adds it to the encoder's.

Decoders of other tools compute them when an answer begins, and take them when it goes on. A bundle's encoder gives
them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import add_initializer, sweep
from triform.runtime.errors import UnsupportedError

_STATES = "encoder_hidden_states"
# Before the heads stand in front of the tokens.
_SWAP = [0, 2, 1, 3]


def cut_cross(model: ir.Model, path: Path, names: list[str], sizes: list[tuple[int, int]]) -> None:
    """Leave of a decoder's graph only what computes some outputs of `encoder_hidden_states`.

    Args:
        model: changed in place.
        path: its file, for messages.
        names: of the outputs.
        sizes: heads and head_dim of each.

    Raises:
        UnsupportedError: an output is missing, or depends on something else.
    """
    graph = model.graph
    given = {str(value.name): value for value in graph.outputs}
    missing = [name for name in names if name not in given]
    if missing:
        raise UnsupportedError(f"{path} does not give {missing[0]}: its cache has another form")
    graph.outputs[:] = [given[name] for name in names]
    for value, (heads, width) in zip(graph.outputs, sizes, strict=True):
        _free_shape(graph, value, heads, width)
    sweep(model)
    unused = [value for value in graph.inputs if not value.uses()]
    for value in unused:
        graph.inputs.remove(value)
    taken = [str(value.name) for value in graph.inputs]
    if taken != [_STATES]:
        wrong = next((name for name in taken if name != _STATES), f"no {_STATES}")
        raise UnsupportedError(
            f"{path} computes {names[0]} of {wrong}, and not of {_STATES} alone; export the checkpoint instead"
        )


def _free_shape(graph: ir.Graph, value: ir.Value, heads: int, width: int) -> None:
    """Split the heads by numbers, and not by what the graph computes of the decoder's own tokens."""
    node = value.producer()
    while node is not None and node.op_type in ("Cast", "Identity"):
        source = node.inputs[0]
        node = None if source is None else source.producer()
    if node is None or node.op_type != "Transpose" or list(node.attributes["perm"].as_ints()) != _SWAP:
        return
    before = node.inputs[0]
    split = None if before is None else before.producer()
    if split is not None and split.op_type == "Reshape":
        # Zeros keep the sizes of the batch and of the source.
        shape = add_initializer(graph, "heads", np.array([0, 0, heads, width], np.int64))
        split.replace_input_with(1, shape)


def graft(encoder: ir.Model, cut: ir.Model) -> list[ir.Value]:
    """Add a graph that `cut_cross` left behind the last states of an encoder's.

    Args:
        encoder: changed in place; its first output are the states.
        cut: of the same opset; empty afterwards.

    Returns:
        the outputs of `cut`.
    """
    graph, other = encoder.graph, cut.graph
    states, [taken] = graph.outputs[0], other.inputs
    if states.dtype != taken.dtype:
        cast = ir.node("Cast", [states], {"to": int(taken.dtype or ir.DataType.FLOAT)})
        graph.append(cast)
        states = cast.outputs[0]
    results = list(other.outputs)
    other.outputs.clear()
    other.inputs.clear()
    ir.convenience.replace_all_uses_with(taken, states)
    constants = list(other.initializers.values())
    other.initializers.clear()
    nodes = list(other)
    other.remove(nodes)
    for value in (*constants, *(value for node in nodes for value in node.outputs)):
        # An output that nothing uses may have no name.
        value.name = f"cross.{value.name}" if value.name else value.name
    for place, node in enumerate(nodes):
        # Nodes need no names, and ONNX Runtime takes none twice.
        node.name = f"cross.{place}.{node.name}"
    for value in constants:
        graph.register_initializer(value)
    graph.extend(nodes)
    for name, version in cut.opset_imports.items():
        encoder.opset_imports.setdefault(name, version)
    return results
