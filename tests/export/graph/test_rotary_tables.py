"""Tables of cosines and sines that ONNX Runtime computes are those that transformers computes, at every position."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from triform.export.graph.nodes import MICROSOFT, add_initializer
from triform.export.graph.rotary_tables import compute_rotary_tables

LENGTH, HALF = 40_000, 64


def tables(**parameters):
    config = LlamaConfig(
        head_dim=2 * HALF,
        max_position_embeddings=LENGTH,
        rope_parameters={"rope_theta": 10_000.0, "rope_type": "default", **parameters},
    )
    module = LlamaRotaryEmbedding(config)
    cos, sin = module(torch.zeros(1), torch.arange(LENGTH)[None])
    return module.inv_freq, cos[0, :, :HALF], sin[0, :, :HALF]


def graph_of(cos, sin):
    x = ir.Value(name="x", shape=ir.Shape([1, 1]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("GroupQueryAttention", [x, *[None] * 8], domain=MICROSOFT)
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21, MICROSOFT: 1}, name="graph")
    for place, name, table in ((7, "cos", cos), (8, "sin", sin)):
        node.replace_input_with(place, add_initializer(graph, name, table.contiguous().numpy()))
    return ir.Model(graph, ir_version=10), node


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"rope_type": "linear", "factor": 8.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10_000},
    ],
    ids=lambda parameters: parameters.get("rope_type", "default"),
)
def test_computed_tables_are_those_of_transformers(parameters, tmp_path):
    frequencies, cos, sin = tables(**parameters)
    model, node = graph_of(cos, sin)
    compute_rotary_tables(model, [frequencies * 2, frequencies[:7], frequencies])
    assert max(value.const_value.nbytes for value in model.graph.initializers.values()) < 1000
    made = node.inputs[7:9]
    model.graph.outputs[:] = made
    model.graph.remove(node)
    ir.save(model, tmp_path / "tables.onnx")
    session = ort.InferenceSession(str(tmp_path / "tables.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.zeros((1, 1), np.float32)})
    np.testing.assert_allclose(found[0], cos, atol=2e-6)
    np.testing.assert_allclose(found[1], sin, atol=2e-6)


def test_tables_that_nothing_explains_stay(tmp_path):
    frequencies, cos, sin = tables()
    cos[-1, -1] += 0.01
    model, node = graph_of(cos, sin)
    compute_rotary_tables(model, [frequencies])
    assert [value.name for value in node.inputs[7:9]] == ["cos", "sin"]
