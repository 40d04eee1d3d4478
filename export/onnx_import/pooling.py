"""Adds the pooling of sentence-transformers to a graph that gives the vectors of tokens.

Only operators whose meaning is the same in all opsets from 8 on are used, since graphs of others have any.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from triform.export.checkpoint.sentence.sentence_transformers import SentenceModules
from triform.export.graph.nodes import add_initializer
from triform.export.onnx_import.graph import append
from triform.runtime.errors import UnsupportedError

_POOLINGS = ("mean", "cls")


def add_pooling(graph: ir.Graph, modules: SentenceModules, width: int) -> None:
    """Add the output ``sentence_embedding``.

    Args:
        graph: has the output ``last_hidden_state``; changed in place.
        modules: what is computed of it.
        width: of the vectors.

    Raises:
        UnsupportedError: the folder has a module that cannot be added.
    """
    if len(modules.pooling) != 1 or modules.pooling[0] not in _POOLINGS or modules.dense or modules.dimensions:
        beside = "dense layers" if modules.dense else "shortened vectors" if modules.dimensions else "the pooling"
        raise UnsupportedError(
            f"{beside} ({', '.join(modules.pooling)}) cannot be added to a graph; export the checkpoint instead"
        )
    if not modules.include_prompt:
        raise UnsupportedError("a pooling that leaves out prompts cannot be added; export the checkpoint instead")
    states = next(value for value in graph.outputs if value.name == "last_hidden_state")
    mask = next(value for value in graph.inputs if value.name == "attention_mask")
    vector = _mean(graph, states, mask) if modules.pooling == ("mean",) else _first(graph, states)
    if modules.normalize:
        vector = _normalized(graph, vector)
    # A vector of a row; the axis of one element comes from the products of matrices.
    result = append(graph, "Reshape", [vector, _sizes(graph, 0, -1)])
    result.name, result.type = "sentence_embedding", ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape(["batch", width])
    graph.outputs.append(result)


def _sizes(graph: ir.Graph, *sizes: int) -> ir.Value:
    return add_initializer(graph, "sizes", np.array(sizes, np.int64))


def _first(graph: ir.Graph, states: ir.Value) -> ir.Value:
    return append(graph, "Gather", [states, add_initializer(graph, "first", np.array([0], np.int64))], axis=1)


def _mean(graph: ir.Graph, states: ir.Value, mask: ir.Value) -> ir.Value:
    """(batch, 1, width): the mask times the states, divided by the mask times itself."""
    weights = append(graph, "Cast", [mask], to=int(ir.DataType.FLOAT))
    row = append(graph, "Reshape", [weights, _sizes(graph, 0, 1, -1)])
    column = append(graph, "Reshape", [weights, _sizes(graph, 0, -1, 1)])
    count = append(graph, "MatMul", [row, column])
    least = add_initializer(graph, "least", np.array([1e-9], np.float32))
    return append(graph, "Div", [append(graph, "MatMul", [row, states]), append(graph, "Max", [count, least])])


def _normalized(graph: ir.Graph, vector: ir.Value) -> ir.Value:
    """(batch, 1, width), of length 1."""
    column = append(graph, "Transpose", [vector])
    column.producer().attributes["perm"] = ir.AttrInt64s("perm", [0, 2, 1])  # type: ignore[union-attr]
    length = append(graph, "Sqrt", [append(graph, "MatMul", [vector, column])])
    least = add_initializer(graph, "least", np.array([1e-12], np.float32))
    return append(graph, "Div", [vector, append(graph, "Max", [length, least])])
