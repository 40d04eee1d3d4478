"""Tables of cosines and sines that ONNX Runtime computes are those that transformers computes, at every position."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from transformers import LlamaConfig, Wav2Vec2ConformerConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.speecht5.modeling_speecht5 import SpeechT5ScaledPositionalEncoding
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerRelPositionalEmbedding

from triform.export.graph.nodes import MICROSOFT, add_initializer
from triform.export.graph.position_tables import compute_rotary_tables, compute_sinusoids

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


# Of 24 channels, a little more than what is large; the first has rows for the distance of two tokens.
ROWS, CHANNELS = 44_000, 24
SINUSOIDS = {
    "up from zero": lambda: SpeechT5ScaledPositionalEncoding(0.0, CHANNELS, ROWS).pe,
    "down through zero": lambda: (
        Wav2Vec2ConformerRelPositionalEmbedding(
            Wav2Vec2ConformerConfig(hidden_size=CHANNELS, max_source_positions=ROWS // 2 + 1)
        ).pe
    ),
}


def sliced(table):
    """A graph that reads some of the rows of a table (1, rows, channels), from the row that is its input on."""
    start = ir.Value(name="start", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    graph = ir.Graph([start], [], nodes=[], opset_imports={"": 21}, name="graph")
    end, axis = (add_initializer(graph, name, np.array([value])) for name, value in (("end", 10**9), ("axis", 1)))
    node = ir.node("Slice", [add_initializer(graph, "table", table.contiguous().numpy()), start, end, axis])
    graph.append(node)
    node.outputs[0].name, node.outputs[0].type = "rows", ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(node.outputs[0])
    return ir.Model(graph, ir_version=10)


def constants_of(model):
    return [value.const_value.nbytes for value in model.graph.initializers.values()]


@pytest.mark.parametrize("kind", SINUSOIDS)
def test_computed_sinusoids_are_those_of_transformers(kind, tmp_path):
    table = SINUSOIDS[kind]()
    model = sliced(table)
    compute_sinusoids(model)
    assert max(constants_of(model)) < 1000
    ir.save(model, tmp_path / "table.onnx")
    session = ort.InferenceSession(str(tmp_path / "table.onnx"), providers=["CPUExecutionProvider"])
    for start in (0, table.shape[1] // 2, table.shape[1] - 3):
        (found,) = session.run(None, {"start": np.array([start])})
        np.testing.assert_allclose(found, table[:, start:], atol=2e-6)


def test_sinusoids_that_are_small_or_end_otherwise_stay():
    table = SINUSOIDS["up from zero"]()
    changed = table.clone()
    changed[0, -1, -1] += 0.01
    for given in (table[:, :40_000], changed, table[:, 1:]):
        model = sliced(given)
        compute_sinusoids(model)
        assert given.nbytes in constants_of(model)
