"""A small graph of a decoder that concatenates its cache, whose results are sums of tokens."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

HEADS, WIDTH = 2, 3
# What a token's keys and values are multiplied with; they sum up to 21.
WEIGHTS = np.arange(1, 7, dtype=np.float32).reshape(1, HEADS, 1, WIDTH)


def summing_graph() -> ModelProto:
    """Keys are tokens times `WEIGHTS`, and values twice that; logits the sum of a row's tokens, and its past length."""
    floats, numbers = TensorProto.FLOAT, TensorProto.INT64
    cache = ["batch", HEADS, "past", WIDTH]
    inputs = [
        helper.make_tensor_value_info("input_ids", numbers, ["batch", "sequence"]),
        helper.make_tensor_value_info("past_lengths", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("logits_positions", numbers, ["batch", "wanted"]),
        helper.make_tensor_value_info("past_key_values.0.key", floats, cache),
        helper.make_tensor_value_info("past_key_values.0.value", floats, cache),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", floats, ["batch", "wanted", 2]),
        helper.make_tensor_value_info("present.0.key", floats, ["batch", HEADS, "total", WIDTH]),
        helper.make_tensor_value_info("present.0.value", floats, ["batch", HEADS, "total", WIDTH]),
    ]
    constants = [
        helper.make_tensor("weights", floats, WEIGHTS.shape, WEIGHTS.ravel()),
        helper.make_tensor("two", floats, [], [2.0]),
        helper.make_tensor("axis", numbers, [], [1]),
        *(helper.make_tensor(f"at{axes}", numbers, [len(axes)], axes) for axes in ([1], [2], [1, 3])),
    ]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=floats),
        helper.make_node("Unsqueeze", ["ids", "at[1, 3]"], ["tokens"]),
        helper.make_node("Mul", ["tokens", "weights"], ["new"]),
        helper.make_node("Mul", ["new", "two"], ["new_value"]),
        helper.make_node("Concat", ["past_key_values.0.key", "new"], ["present.0.key"], axis=2),
        helper.make_node("Concat", ["past_key_values.0.value", "new_value"], ["present.0.value"], axis=2),
        helper.make_node("Add", ["present.0.key", "present.0.value"], ["both"]),
        helper.make_node("ReduceSum", ["both", "at[1, 3]"], ["each"], keepdims=0),
        helper.make_node("CumSum", ["each", "axis"], ["sums"]),
        helper.make_node("Shape", ["past_key_values.0.key"], ["past"], start=2, end=3),
        helper.make_node("Add", ["logits_positions", "past"], ["places"]),
        helper.make_node("GatherElements", ["sums", "places"], ["sum"], axis=1),
        helper.make_node("Cast", ["past_lengths"], ["lengths"], to=floats),
        helper.make_node("Unsqueeze", ["lengths", "at[1]"], ["column"]),
        helper.make_node("Shape", ["sum"], ["wanted"]),
        helper.make_node("Expand", ["column", "wanted"], ["second"]),
        helper.make_node("Unsqueeze", ["sum", "at[2]"], ["sum3"]),
        helper.make_node("Unsqueeze", ["second", "at[2]"], ["second3"]),
        helper.make_node("Concat", ["sum3", "second3"], ["logits"], axis=2),
    ]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
