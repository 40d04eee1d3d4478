"""Channels are made more alike, and the graph computes what it did; factors by arithmetic, results from PyTorch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.checkpoints.decoder_families import CONTEXT, FAMILIES, VOCAB, build
from tests.checkpoints.recurrent_families import RECURRENT_FAMILIES
from triform.export.graph.cache import cache_info
from triform.export.graph.experts import EXPERTS
from triform.export.graph.fusion import fuse
from triform.export.graph.linear import DOMAIN, LINEAR
from triform.export.graph.nodes import MICROSOFT, add_initializer, nodes
from triform.export.graph.tracing import trace
from triform.export.graph.weights import StackedTensor, matrix, pieces_of, scaling_of
from triform.export.quantize.blocks import lower_to_float
from triform.export.quantize.smoothing import smooth_channels
from triform.export.runners import DecoderRunner
from triform.export.verify.decoder import reference_logits, verify_decoder
from triform.export.write import write_graph
from triform.models.decoder.graph import decoder_spec

IDS = torch.randint(0, VOCAB, (90,), generator=torch.Generator().manual_seed(2)).tolist()
# How many weights are scaled of three layers, or two of lfm2 and qwen3_5_text: those behind norms, routers too; rows
# that a gate opens, and what reads these; the head. What follows an activation or attention is not. A layer of phi has
# one norm, and olmo2 none before its products.
SCALED = {
    "llama": 10, "tied embeddings": 10, "qwen2": 10, "gemma2": 10, "smollm3": 10, "granite": 10, "stablelm": 10,
    "gpt2": 7, "bloom": 7, "opt": 7, "gpt_neox": 7, "falcon, two norms": 7, "phi": 4, "mixtral": 7, "qwen3_moe": 7,
    "olmo2": 7, "lfm2": 7, "qwen3_5_text": 7, "biases of keys": 10,
}  # fmt: skip


def uneven_energies(graph):
    """By weight name, energies from 1e-6 to 1e6; the same for products that read the same activation."""
    made, draw = {}, torch.Generator().manual_seed(0)
    energies = {}
    for node in nodes(graph, LINEAR, EXPERTS):
        x, weight = node.inputs[0], node.inputs[1 if node.op_type == LINEAR else 2]
        width = x.shape[-1]
        drawn = made.setdefault(id(x), 10 ** (12 * torch.rand(width, generator=draw) - 6))
        energies[str(weight.name)] = drawn
    return energies


@pytest.mark.parametrize("family", SCALED)
def test_the_graph_computes_what_pytorch_does(family, tmp_path):
    model = build(*(FAMILIES | RECURRENT_FAMILIES)[family])
    expected = reference_logits(model, IDS)
    spec, prepared = decoder_spec(model, CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    smooth_channels(graph, uneven_energies(graph.graph))
    weights = {node.inputs[1] for node in nodes(graph.graph, LINEAR)}
    scaled = [weight for weight in weights if scaling_of(weight) is not None]
    assert len(scaled) == SCALED[family]
    lower_to_float(graph)
    write_graph(graph, tmp_path / "graph.onnx")
    verify_decoder(DecoderRunner(tmp_path / "graph.onnx", cache_info(spec), 2), expected, IDS)


def floats(name, *sizes):
    return ir.Value(name=name, shape=ir.Shape(sizes), type=ir.TensorType(ir.DataType.FLOAT))


def graph_of_norm(*, read_by_others=False):
    """x, a norm, and the product of a matrix of 3 by 4."""
    x = floats("x", 2, 4)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 21, MICROSOFT: 1, DOMAIN: 1}, name="all")
    scale = add_initializer(graph, "scale", np.full(4, 2, np.float32))
    weight = add_initializer(graph, "w", StackedTensor((torch.ones(1, 4), torch.full((2, 4), 3.0)), None))
    norm = ir.node("SimplifiedLayerNormalization", [x, scale])
    norm.outputs[0].shape, norm.outputs[0].type = x.shape, x.type
    product = ir.node(LINEAR, [norm.outputs[0], weight], domain=DOMAIN)
    graph.extend([norm, product])
    graph.outputs.append(product.outputs[0])
    if read_by_others:
        other = ir.node("Neg", [norm.outputs[0]])
        graph.append(other)
        graph.outputs.append(other.outputs[0])
    return ir.Model(graph, ir_version=10)


def test_a_channel_of_a_hundred_times_the_size_is_divided_by_a_power_of_that():
    model = graph_of_norm()
    after = smooth_channels(model, {"w": torch.tensor([1.0, 1.0, 1.0, 1e4])})
    norm, product = model.graph
    scale, weight = matrix(norm.inputs[1]), matrix(product.inputs[1])
    # To the power of 0.35, and with a geometric mean of 1.
    factors = torch.tensor([1.0, 1.0, 1.0, 100**0.35]) / 100 ** (0.35 / 4)
    torch.testing.assert_close(scale, 2 / factors)
    torch.testing.assert_close(weight, torch.tensor([[1.0], [3.0], [3.0]]) * factors)
    torch.testing.assert_close(after["w"], torch.tensor([1.0, 1.0, 1.0, 1e4]) / factors**2)
    with pytest.raises(ValueError, match="w is scaled"):
        pieces_of(product.inputs[1])


def test_a_channel_that_is_never_active_has_a_finite_factor():
    model = graph_of_norm()
    smooth_channels(model, {"w": torch.tensor([1.0, 1.0, 0.0, 1.0])})
    assert matrix(model.graph[0].inputs[1]).isfinite().all() and matrix(model.graph[1].inputs[1]).isfinite().all()


@pytest.mark.parametrize(
    ("others", "energies"), [(True, {"w": torch.tensor([1.0, 1.0, 1.0, 1e4])}), (False, {})], ids=["read", "unknown"]
)
def test_what_others_read_and_what_was_not_measured_stays(others, energies):
    model = graph_of_norm(read_by_others=others)
    assert smooth_channels(model, energies) == energies
    assert scaling_of(model.graph[1].inputs[1]) is None
    assert matrix(model.graph[0].inputs[1]).tolist() == [2, 2, 2, 2]


def graph_of_gate(*, axis=-1, gate=4):
    """x, the product of a matrix of `gate` + 4 rows, split, one part times the other, and the product of that."""
    x = floats("x", 8, 8, 3)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 21, MICROSOFT: 1, DOMAIN: 1}, name="all")
    first, last = (
        add_initializer(graph, name, StackedTensor((torch.ones(rows, columns),), None))
        for name, rows, columns in (("first", gate + 4, 3), ("last", 2, 4))
    )
    bias, lengths = (
        add_initializer(graph, "bias", np.ones(gate + 4, np.float32)),
        add_initializer(graph, "lengths", np.array([gate, 4])),
    )
    made = [ir.node(LINEAR, [x, first, bias], domain=DOMAIN)]
    made.append(ir.node("Split", [made[0].outputs[0], lengths], {"axis": axis}, num_outputs=2))
    made.append(ir.node("Sigmoid", [made[1].outputs[0]]))
    made.append(ir.node("Mul", [made[2].outputs[0], made[1].outputs[1]]))
    made.append(ir.node(LINEAR, [made[3].outputs[0], last], domain=DOMAIN))
    made[0].outputs[0].shape = ir.Shape([8, 8, gate + 4])
    graph.extend(made)
    graph.outputs.append(made[-1].outputs[0])
    return ir.Model(graph, ir_version=10)


def test_the_rows_that_a_gate_opens_are_divided_with_their_biases():
    model = graph_of_gate()
    smooth_channels(model, {"first": torch.ones(3), "last": torch.tensor([1.0, 1.0, 1.0, 1e4])})
    factors = torch.tensor([1.0, 1.0, 1.0, 100**0.35]) / 100 ** (0.35 / 4)
    divided = torch.cat([torch.ones(4), 1 / factors])
    first, last = model.graph[0], model.graph[-1]
    torch.testing.assert_close(matrix(first.inputs[1]), divided[:, None].expand(8, 3))
    torch.testing.assert_close(matrix(first.inputs[2]), divided)
    torch.testing.assert_close(matrix(last.inputs[1]), factors.expand(2, 4))


@pytest.mark.parametrize(
    "model", [graph_of_gate(axis=1), graph_of_gate(gate=1)], ids=["tokens are split", "opened by one number"]
)
def test_rows_that_are_not_the_channels_stay(model):
    """What is split by tokens has no rows of its own; a gate of one number opens all channels alike."""
    if model.graph[1].attributes["axis"].as_int() == -1:
        # The number is what the Mul reads as a product of its own.
        gate, opened = model.graph[1].outputs
        model.graph[2].replace_input_with(0, opened)
        model.graph[3].replace_input_with(1, gate)
    smooth_channels(model, {"last": torch.tensor([1.0, 1.0, 1.0, 1e4])})
    assert scaling_of(model.graph[0].inputs[1]) is None and scaling_of(model.graph[-1].inputs[1]) is None
