"""Gives the inputs and outputs of an encoder's graph the names, types and axes that a bundle has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import add_initializer
from triform.runtime.errors import ExportError, UnsupportedError, option
from triform.runtime.printable import quoted

TOKEN_TYPES = "token_type_ids"
_INPUTS = ("input_ids", "attention_mask", TOKEN_TYPES)
# What sentence-transformers calls the vectors of tokens.
_OTHER_NAMES = {"token_embeddings": "last_hidden_state"}
# Outputs to keep, by task, and those that a task needs; all others are left out.
_KEPT: dict[str, tuple[str, ...]] = {
    "feature-extraction": ("last_hidden_state", "sentence_embedding"),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "fill-mask": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
}
_BY_TOKEN = {"last_hidden_state", "start_logits", "end_logits"}
# Those of one number a token, or one vector a text.
_OF_A_ROW = {"start_logits", "end_logits", "sentence_embedding"}
# GatherND of a batch; Einsum is not used, so nothing else needs more than 8.
_OLDEST_FOR_MASKS = 12


def task_of(graph: ir.Graph, architectures: Sequence[str]) -> str | None:
    """The task that outputs and the classes in the config imply; None if they do not tell."""
    names = {_OTHER_NAMES.get(str(value.name), str(value.name)) for value in graph.outputs}
    if "start_logits" in names:
        return "question-answering"
    if names & {"last_hidden_state", "sentence_embedding"}:
        return "feature-extraction"
    heads = {"ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification"}
    heads["ForMaskedLM"] = "fill-mask"
    for name in architectures:
        for head, task in heads.items():
            if name.endswith(head) and "logits" in names:
                return task
    return None


def adapt(model: ir.Model, path: Path, task: str) -> None:
    """Change a graph in place.

    Args:
        model: the graph.
        path: its file, for messages.
        task: one of transformers' names.

    Raises:
        UnsupportedError: an input is unknown, an output is missing, or an axis is fixed.
    """
    for value in model.graph.inputs:
        adapt_input(model.graph, value, path)
    names = [str(value.name) for value in model.graph.inputs]
    if "input_ids" not in names or "attention_mask" not in names:
        raise UnsupportedError(f"{path} takes {', '.join(names)}: an encoder of texts takes input_ids, attention_mask")
    _keep_outputs(model, path, task)
    if task == "fill-mask":
        _pick_positions(model, path)
    for value in model.graph.outputs:
        _check_axes(value, path, task)
        _set_axes(value, task)


def adapt_input(graph: ir.Graph, value: ir.Value, path: Path) -> None:
    """Take the ids or the mask of tokens as int64 (batch, sequence).

    Args:
        graph: changed in place.
        value: one of its inputs.
        path: its file, for messages.

    Raises:
        UnsupportedError: the input is unknown, or an axis is fixed.
    """
    if value.name not in _INPUTS:
        raise UnsupportedError(
            f"{path} takes the input {quoted(value.name)}, which is unknown; known are {', '.join(_INPUTS)}"
        )
    sizes = list(value.shape or [])
    if len(sizes) != 2 or any(isinstance(size, int) for size in sizes):
        raise UnsupportedError(f"{path} takes {value.name} of the fixed shape {sizes}, so it cannot read any text")
    value.shape = ir.Shape(["batch", "sequence"])
    take_as(graph, value, ir.DataType.INT64)


def take_no_types(graph: ir.Graph) -> None:
    """Compute an input of token types, if there is one: all are 0, as of a tokenizer that gives none."""
    values = {str(value.name): value for value in graph.inputs}
    if TOKEN_TYPES not in values:
        return
    zeros = ir.node("Sub", [values["input_ids"], values["input_ids"]])
    zeros.outputs[0].name, zeros.outputs[0].type = "no_types", ir.TensorType(ir.DataType.INT64)
    zeros.outputs[0].shape = values["input_ids"].shape
    for node, index in list(values[TOKEN_TYPES].uses()):
        node.replace_input_with(index, zeros.outputs[0])
    graph.insert_before(graph[0], [zeros])
    graph.inputs.remove(values[TOKEN_TYPES])


def take_as(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> None:
    """Take an input of a graph as another type, and let all nodes read what it was."""
    if value.dtype == dtype:
        return
    users = list(value.uses())
    cast = ir.node("Cast", [value], {"to": int(value.dtype or dtype)})
    cast.outputs[0].type, cast.outputs[0].shape = value.type, value.shape
    cast.outputs[0].name = f"{value.name}_as_before"
    value.type = ir.TensorType(dtype)
    graph.insert_before(graph[0], [cast])
    for node, index in users:
        node.replace_input_with(index, cast.outputs[0])


def _keep_outputs(model: ir.Model, path: Path, task: str) -> None:
    given = {_OTHER_NAMES.get(str(value.name), str(value.name)): value for value in model.graph.outputs}
    kept = {name: given[name] for name in _KEPT[task] if name in given}
    needed = () if task == "feature-extraction" else _KEPT[task]
    missing = [name for name in needed if name not in kept]
    if missing or not kept:
        raise UnsupportedError(f"{path} gives {', '.join(given)}: {task} needs {', '.join(missing or _KEPT[task][:1])}")
    model.graph.outputs.clear()
    for name, value in kept.items():
        output = value
        if output.dtype != ir.DataType.FLOAT:
            output = append(model.graph, "Cast", [value], to=int(ir.DataType.FLOAT))
            output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        if output.name != name:
            if value.name == name:
                value.name = f"{name}_as_before"
            output.name = name
        model.graph.outputs.append(output)


def append(graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
    """Add a node at the end of a graph; return its output."""
    node = ir.node(op_type, inputs, attributes)
    graph.append(node)
    return node.outputs[0]


def _pick_positions(model: ir.Model, path: Path) -> None:
    """Let the graph give the logits at `logits_positions` only."""
    graph, [logits] = model.graph, model.graph.outputs
    if (model.opset_imports.get("") or 0) < _OLDEST_FOR_MASKS:
        raise ExportError(f"{path} has an opset below {_OLDEST_FOR_MASKS}: export the model again with a newer one")
    positions = ir.val("logits_positions", ir.DataType.INT64, ["batch", "num_logits"])
    graph.inputs.append(positions)
    column = append(graph, "Reshape", [positions, add_initializer(graph, "columns", np.array([0, -1, 1], np.int64))])
    width = (logits.shape or [None])[-1]
    logits.name = "all_logits"
    picked = append(graph, "GatherND", [logits, column], batch_dims=1)
    picked.name, picked.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    picked.shape = ir.Shape(["batch", "num_logits", width])
    graph.outputs[:] = [picked]


def _check_axes(value: ir.Value, path: Path, task: str) -> None:
    """Refuse an output of as many axes as another task has, if the graph says how many there are."""
    axes = 2 if value.name in _OF_A_ROW or task == "text-classification" else 3
    if value.shape is not None and len(value.shape) != axes:
        raise UnsupportedError(
            f"{path} gives {value.name} of {len(value.shape)} axes, and {task} has {axes}: "
            f"name the graph's own task with {option('task')}"
        )


def _set_axes(value: ir.Value, task: str) -> None:
    sizes: list[int | ir.SymbolicDim | str | None] = list(value.shape or [])
    if sizes:
        sizes[0] = "batch"
    if len(sizes) > 1 and (value.name in _BY_TOKEN or task == "token-classification"):
        sizes[1] = "sequence"
    value.shape = ir.Shape(sizes)
