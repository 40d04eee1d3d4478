"""Attention to a source, of several rows for each source, as numpy computes it by its definition."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_ir import from_proto

from triform.export.graph.cross_attention import (
    lower_cross_attention,
    lower_cross_weights,
    lower_summed_cross_attention,
)
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph

SOURCES, BEAMS, QUERIES, HEADS, WIDTH, LENGTH = 2, 3, 5, 2, 4, 7
ROWS = SOURCES * BEAMS
SCALE = 0.3
LOWER = {
    "CrossAttention": lower_cross_attention,
    "CrossWeights": lower_cross_weights,
    "SummedCrossAttention": lower_summed_cross_attention,
}


@pytest.fixture
def arrays():
    generator = np.random.default_rng(4)
    padding = np.ones((SOURCES, LENGTH), np.int32)
    padding[1, 4:] = 0
    return {
        "query": generator.normal(size=(ROWS, QUERIES, HEADS * WIDTH)).astype(np.float32),
        "key": generator.normal(size=(SOURCES, HEADS, LENGTH, WIDTH)).astype(np.float32),
        "value": generator.normal(size=(SOURCES, HEADS, LENGTH, WIDTH)).astype(np.float32),
        "padding": padding,
    }


def run(folder, kind, arrays, outputs, **attributes):
    """What a node that the lowering replaces gives, by ONNX Runtime; outputs by name with their rank."""
    floats = {name: TensorProto.INT32 if name == "padding" else TensorProto.FLOAT for name in arrays}
    inputs = [helper.make_tensor_value_info(name, floats[name], arrays[name].shape) for name in arrays]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()]
    node = helper.make_node(
        kind, list(arrays), list(outputs), domain="triform", num_heads=HEADS, head_dim=WIDTH, scale=SCALE, **attributes
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("triform", 1)]
    graph = helper.make_graph([node], "g", inputs, given)
    model = from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
    LOWER[kind](model)
    model.opset_imports.pop("triform")
    write_graph(model, folder / "encoder.onnx")
    return EncoderRunner(folder / "encoder.onnx", 1).run(arrays)


def scores_of(arrays):
    """(rows, heads, queries, length), each row with its source's keys."""
    query = arrays["query"].reshape(ROWS, QUERIES, HEADS, WIDTH).transpose(0, 2, 1, 3)
    return SCALE * query @ of_rows(arrays["key"]).transpose(0, 1, 3, 2)


def of_rows(array):
    return array.repeat(BEAMS, 0)


def hidden(scores, arrays):
    if "padding" not in arrays:
        return scores
    return np.where(of_rows(arrays["padding"])[:, None, None].astype(bool), scores, -np.inf)


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def joined(attended):
    return attended.transpose(0, 2, 1, 3).reshape(ROWS, QUERIES, HEADS * WIDTH)


@pytest.mark.parametrize("softcap", [0.0, 0.8])
@pytest.mark.parametrize("padded", [False, True])
def test_rows_attend_to_their_source(tmp_path, arrays, softcap, padded):
    if not padded:
        del arrays["padding"]
    scores = scores_of(arrays)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    expected = joined(softmax(hidden(scores, arrays)) @ of_rows(arrays["value"]))
    found = run(tmp_path, "CrossAttention", arrays, {"y": 3}, softcap=softcap)["y"]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_weights(tmp_path, arrays):
    del arrays["value"], arrays["padding"]
    found = run(tmp_path, "CrossWeights", arrays, {"y": 4})["y"]
    np.testing.assert_allclose(found, softmax(scores_of(arrays)).transpose(0, 2, 1, 3), atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
def test_the_logarithm_of_the_sum_comes_with_the_rest(tmp_path, arrays, padded):
    if not padded:
        del arrays["padding"]
    scores = hidden(scores_of(arrays), arrays)
    found = run(tmp_path, "SummedCrossAttention", arrays, {"y": 3, "sum": 3})
    np.testing.assert_allclose(found["y"], joined(softmax(scores) @ of_rows(arrays["value"])), atol=2e-6)
    np.testing.assert_allclose(found["sum"], np.log(np.exp(scores).sum(-1)).transpose(0, 2, 1), atol=2e-6)
