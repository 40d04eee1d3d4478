"""Experts in a file's own blocks compute what transformers computes with the file's numbers."""

from __future__ import annotations

import gguf
import numpy as np
import onnx_ir as ir
import pytest
import torch
from gguf import GGMLQuantizationType as Format
from transformers import CONFIG_MAPPING
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from tests.checkpoints.gguf_blocks import random_tensor
from triform.export.checkpoint.gguf.blocks import can_decode, decode, has_minimums
from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.placement import Placement
from triform.export.quantize.stored.blocks import StoredWeights
from triform.export.quantize.stored.experts import lower_stored_experts
from triform.export.runners import open_session_of
from triform.export.write import write_graph

EXPERTS, HIDDEN, INNER, CHOSEN, TOKENS = 3, 512, 256, 2, 5
DECODED = [kind for kind in Format if can_decode(kind)]


def experts_tensor(name, kind, rows, columns):
    flat = random_tensor(kind, EXPERTS * rows, columns)
    if name == "ffn_up":
        # Other numbers than the gate's.
        flat = Tensor(flat.name, kind, flat.shape, flat.data[::-1])
    return Tensor(f"blk.0.{name}_exps.weight", kind, (EXPERTS, rows, columns), flat.data.reshape(EXPERTS, rows, -1))


def values(tensor):
    return torch.from_numpy(gguf.dequantize(tensor.data, tensor.format))


def layer_of(gate, up, down):
    sizes = {"hidden_size": HIDDEN, "moe_intermediate_size": INNER, "num_local_experts": EXPERTS}
    config = CONFIG_MAPPING["qwen3_moe"](**sizes, num_experts_per_tok=CHOSEN)
    config._experts_implementation = "eager"
    layer = Qwen3MoeExperts(config)
    layer.gate_up_proj.data, layer.down_proj.data = torch.cat([values(gate), values(up)], 1), values(down)
    return layer.requires_grad_(False)


def graph_of(layer):
    floats = ir.TensorType(ir.DataType.FLOAT)
    hidden = ir.Value(name="hidden", shape=ir.Shape(["tokens", HIDDEN]), type=floats)
    routing = ir.Value(name="routing", shape=ir.Shape(["tokens", EXPERTS]), type=floats)
    weights = []
    for name, weight in (("up", layer.gate_up_proj), ("down", layer.down_proj)):
        array = ir.tensor(weight.numpy(), name=name)
        weights.append(ir.Value(name=name, shape=ir.Shape(array.shape), type=floats, const_value=array))
    attributes = {
        "k": CHOSEN, "transposed": 0, "interleaved": 0, "activation": "swiglu", "alpha": 1.0, "beta": 0.0
    }  # fmt: skip
    node = ir.node("Experts", [hidden, routing, weights[0], None, weights[1], None], attributes, domain="triform")
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", floats, hidden.shape
    graph = ir.Graph(
        [hidden, routing], node.outputs, nodes=[node], opset_imports={"": 21, "com.microsoft": 1}, name="experts",
        initializers=weights,
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)


def compared(folder, gate, up, down, bits):
    """The graph's output and transformers', and the formats of the matrices."""
    layer = layer_of(gate, up, down)
    model = graph_of(layer)
    stored = StoredWeights({"up": Placement(gate, second=up), "down": Placement(down)})
    assert lower_stored_experts(model, stored, 12 - bits, 1) == {}
    formats = lower_stored_experts(model, stored, bits, 1)
    write_graph(model, folder / "graph.onnx")
    generator = torch.Generator().manual_seed(5)
    index = torch.stack([torch.randperm(EXPERTS, generator=generator)[:CHOSEN] for _ in range(TOKENS)])
    hidden, weights = torch.randn(TOKENS, HIDDEN, generator=generator), torch.rand(TOKENS, CHOSEN, generator=generator)
    routing = torch.zeros(TOKENS, EXPERTS).scatter(1, index, weights).numpy()
    session = open_session_of(folder / "graph.onnx", 1)
    (found,) = session.run(None, {"hidden": hidden.numpy(), "routing": routing})
    return found, layer(hidden, index, weights).numpy(), formats


@pytest.mark.parametrize(
    ("up", "down", "bits"),
    [
        ("Q4_0", "Q4_0", 4), ("Q3_K", "Q3_K", 4), ("Q4_0", "Q3_K", 4), ("Q8_0", "Q8_0", 8), ("Q5_0", "Q6_K", 8),
        ("IQ4_XS", "IQ4_NL", 8), ("Q3_K", "Q8_0", 8),
    ],
)  # fmt: skip
def test_formats_without_minimums_are_kept(tmp_path, up, down, bits):
    found, expected, formats = compared(
        tmp_path,
        experts_tensor("ffn_gate", Format[up], INNER, HIDDEN),
        experts_tensor("ffn_up", Format[up], INNER, HIDDEN),
        experts_tensor("ffn_down", Format[down], HIDDEN, INNER),
        bits,
    )
    # With weights of 8 bits the operator rounds what it multiplies by to 8 bits, whatever the accuracy level.
    np.testing.assert_allclose(found, expected, atol=np.abs(expected).max() * (1e-5 if bits == 4 else 0.03))
    assert formats == ({up: 2 * EXPERTS} if up == down else {up: EXPERTS, down: EXPERTS})


@pytest.mark.parametrize("kind", [kind for kind in DECODED if has_minimums(kind)], ids=lambda kind: kind.name)
def test_formats_with_minimums_are_left(kind):
    gate, up = (experts_tensor(name, kind, INNER, HIDDEN) for name in ("ffn_gate", "ffn_up"))
    down = experts_tensor("ffn_down", Format.Q4_0, HIDDEN, INNER)
    model = graph_of(layer_of(gate, up, down))
    stored = StoredWeights({"up": Placement(gate, second=up), "down": Placement(down)})
    assert lower_stored_experts(model, stored, 4, 1) == lower_stored_experts(model, stored, 8, 1) == {}
    assert [node.op_type for node in model.graph] == ["Experts"]


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_which_formats_have_minimums(kind):
    assert has_minimums(kind) == (decode(random_tensor(kind, 1, 256)).minimums is not None)
