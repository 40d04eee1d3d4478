import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import CONFIG_MAPPING
from transformers.models.aria.modeling_aria import AriaExperts
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextExperts
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.minimax_m3_vl.modeling_minimax_m3_vl import MiniMaxM3VLExperts
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from triform.export.graph.experts import lower_experts_to_float
from triform.export.quantize.blockwise import Blocks, dequantize
from triform.export.quantize.experts import lower_experts
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.models.traceable.experts import activation_of, compute_experts

HIDDEN, INNER, COUNT, CHOSEN, TOKENS = 64, 32, 5, 3, 7
SIZES = {"hidden_size": HIDDEN, "num_experts_per_tok": CHOSEN, "num_local_experts": COUNT}
LAYERS = {
    # Gate and up in halves; in halves of transposed weights; alternating, with biases and a limit; in halves with one.
    "qwen3_moe": (Qwen3MoeExperts, {**SIZES, "moe_intermediate_size": INNER}),
    "aria_text": (AriaExperts, {"hidden_size": HIDDEN, "intermediate_size": INNER, "moe_num_experts": COUNT}),
    "gpt_oss": (GptOssExperts, {**SIZES, "intermediate_size": INNER}),
    "minimax_m3_vl_text": (MiniMaxM3VLExperts, {**SIZES, "intermediate_size": INNER}),
}


def experts_of(model_type, kind, settings, **changes):
    config = CONFIG_MAPPING[model_type](**settings, **changes)
    config._experts_implementation = "eager"
    layer = kind(config)
    generator = torch.Generator().manual_seed(3)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return layer.eval().requires_grad_(False)


@pytest.fixture(params=LAYERS)
def layer(request):
    return experts_of(request.param, *LAYERS[request.param])


def routed():
    """Hidden states, the experts of each token, and their weights, which need not sum to 1."""
    generator = torch.Generator().manual_seed(5)
    index = torch.stack([torch.randperm(COUNT, generator=generator)[:CHOSEN] for _ in range(TOKENS)])
    hidden = 2 * torch.randn(TOKENS, HIDDEN, generator=generator)
    return hidden, index, 2 * torch.rand(TOKENS, CHOSEN, generator=generator)


def experts_graph(layer):
    """hidden (tokens, hidden_size) and routing (tokens, num_experts) to y, one Experts node."""
    activation = activation_of(layer)
    up = "gate_up_proj" if layer.has_gate else "up_proj"
    floats = ir.TensorType(ir.DataType.FLOAT)
    hidden = ir.Value(name="hidden", shape=ir.Shape(["tokens", HIDDEN]), type=floats)
    routing = ir.Value(name="routing", shape=ir.Shape(["tokens", COUNT]), type=floats)
    constants = [
        constant(name, getattr(layer, name, None)) for name in (up, f"{up}_bias", "down_proj", "down_proj_bias")
    ]
    attributes = {
        "k": CHOSEN, "transposed": int(layer.is_transposed), "interleaved": int(activation.interleaved),
        "activation": activation.kind, "alpha": activation.alpha, "beta": activation.beta,
    }  # fmt: skip
    if activation.limit is not None:
        attributes["limit"] = activation.limit
    node = ir.node("Experts", [hidden, routing, *constants], attributes, domain="triform")
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", floats, hidden.shape
    graph = ir.Graph(
        [hidden, routing], node.outputs, nodes=[node], opset_imports={"": 21, "com.microsoft": 1}, name="experts",
        initializers=[value for value in constants if value is not None],
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)


def constant(name, parameter):
    if parameter is None:
        return None
    array = ir.tensor(parameter.numpy(), name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(array.dtype), const_value=array)


def run(model, folder):
    hidden, index, weights = routed()
    write_graph(model, folder / "graph.onnx")
    routing = torch.zeros(TOKENS, COUNT).scatter(1, index, weights)
    arrays = {"hidden": hidden.numpy(), "routing": routing.numpy()}
    return EncoderRunner(folder / "graph.onnx", 1).run(arrays)["y"]


def test_the_float_operator_computes_what_transformers_does(layer, tmp_path):
    model = experts_graph(layer)
    lower_experts_to_float(model)
    expected = layer(*routed()).numpy()
    np.testing.assert_allclose(run(model, tmp_path), expected, atol=1e-5 * abs(expected).max())


def test_experts_are_run_one_by_one_outside_of_tracing(layer):
    torch.testing.assert_close(compute_experts(layer, *routed()), layer(*routed()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("bits", "tolerance"), [(4, 1e-5), (8, 0.03)])
def test_the_quantized_operator_computes_what_transformers_does_with_the_blocks_weights(
    layer, bits, tolerance, tmp_path
):
    """With 8 bits the kernel rounds activations to 8 bits too, to about a 250th of a block's largest."""
    model = experts_graph(layer)
    names = [str(value.name) for value in model.graph.initializers.values()]
    up = next(name for name in names if name.endswith("up_proj"))
    energy = torch.linspace(0.5, 2, HIDDEN)
    assert lower_experts(model, bits, 128, 1, {up: energy}) == 2 * COUNT
    stored = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    assert sum(array.nbytes for name, array in stored.items() if "bias" not in name) < 1.5 * bits / 8 * sum(
        parameter.numel() for name, parameter in layer.named_parameters() if "bias" not in name
    )
    actual = run(model, tmp_path)
    give_back(layer, up, dequantized(stored, f"{up}.up", bits, HIDDEN))
    give_back(layer, "down_proj", dequantized(stored, f"{up}.down", bits, INNER))
    expected = layer(*routed()).numpy()
    np.testing.assert_allclose(actual, expected, atol=tolerance * abs(expected).max())


def dequantized(stored, name, bits, width):
    packed, scales = stored[f"{name}.blocks"], stored[f"{name}.scales"]
    size = width // scales.shape[-1]
    parts = zip(packed.reshape(*scales.shape, -1), scales, stored[f"{name}.zero_points"], strict=True)
    return torch.stack([torch.from_numpy(dequantize(Blocks(*part, bits, size, bits), width)) for part in parts])


def give_back(layer, name, weights):
    """Put weights of the operator's layout, (num_experts, columns, in_features), into the module's."""
    if name == "gate_up_proj" and not activation_of(layer).interleaved:
        weights = torch.cat([weights[:, 0::2], weights[:, 1::2]], dim=1)
    getattr(layer, name).data = weights.transpose(1, 2) if layer.is_transposed else weights


def test_weights_that_no_block_divides_stay_in_float(tmp_path):
    settings = {**SIZES, "moe_intermediate_size": 24}
    model = experts_graph(experts_of("qwen3_moe", Qwen3MoeExperts, settings))
    assert lower_experts(model, 4, 64, 1, {}) == 0
    assert [node.op_type for node in model.graph] == ["Experts"]


def test_a_block_is_as_small_as_the_widths_need():
    settings = {**SIZES, "moe_intermediate_size": 48}
    model = experts_graph(experts_of("qwen3_moe", Qwen3MoeExperts, settings))
    lower_experts(model, 4, 64, 1, {})
    assert next(iter(model.graph)).attributes["block_size"].value == 16


def test_activations_are_recognized_by_what_they_compute():
    gated = {**SIZES, "moe_intermediate_size": INNER}
    silu = activation_of(experts_of("qwen3_moe", Qwen3MoeExperts, gated))
    assert (silu.kind, silu.alpha, silu.beta, silu.limit, silu.interleaved) == ("swiglu", 1.0, 0.0, None, False)
    oss = activation_of(experts_of("gpt_oss", *LAYERS["gpt_oss"]))
    assert (oss.alpha, oss.beta, oss.limit, oss.interleaved) == (1.702, 1.0, 7.0, True)
    for name in ("relu", "silu", "gelu"):
        plain = experts_of(
            "nemotron_h", NemotronHExperts, {"hidden_size": HIDDEN, "moe_intermediate_size": INNER,
            "n_routed_experts": COUNT}, mlp_hidden_act=name,
        )  # fmt: skip
        assert activation_of(plain).kind == name


@pytest.mark.parametrize(
    ("model_type", "kind", "settings"),
    [
        ("qwen3_moe", Qwen3MoeExperts, {**SIZES, "moe_intermediate_size": INNER, "hidden_act": "gelu"}),
        ("gemma4_text", Gemma4TextExperts, {**SIZES, "num_experts": COUNT, "moe_intermediate_size": INNER}),
        ("nemotron_h", NemotronHExperts, {"hidden_size": HIDDEN, "moe_intermediate_size": INNER}),
    ],
)
def test_activations_that_the_operators_lack_are_left_to_batches(model_type, kind, settings):
    assert activation_of(experts_of(model_type, kind, settings)) is None
