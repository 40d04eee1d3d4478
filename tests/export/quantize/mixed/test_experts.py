"""Mixtures of experts to a goal: what is measured of each expert, and what an export makes of it."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tests.checkpoints.decoder_families import build
from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.quantize.mixed.moments import measure, predictions, product_modules
from triform.export.samples.texts import TokenWindows
from triform.models.traceable.experts import prepare_experts

COMMON = {
    "vocab_size": 352, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 600, "num_experts_per_tok": 2,
}  # fmt: skip
# The weights of gates and of what they open in halves, and alternating with biases; of several hidden layers.
MIXTURES = {
    "qwen3_moe": {**COMMON, "head_dim": 24, "num_experts": 20, "moe_intermediate_size": 96},
    "gpt_oss": {**COMMON, "head_dim": 24, "num_local_experts": 6, "intermediate_size": 96, "sliding_window": 16},
}
TOKENS, WINDOW = 600, 200


@pytest.fixture(scope="module", params=MIXTURES)
def measured(request, tmp_path_factory):
    """A model, a text, and what was measured of its experts along it."""
    model = build(request.param, MIXTURES[request.param])
    prepare_experts(model)
    ids = torch.randint(0, 352, (TOKENS,), generator=torch.Generator().manual_seed(2)).tolist()
    text, folder = TokenWindows(ids, WINDOW), tmp_path_factory.mktemp("moments")
    found = measure(model, product_modules(model), predictions(model, text), TOKENS, folder)
    return model, text, found


@pytest.mark.parametrize("name", ["gate_up_proj", "down_proj"])
def test_the_moments_tell_what_errors_of_all_experts_do_to_the_predictions(measured, name):
    """Half the mean squares of errors, times those of inputs and of gradients, are the divergence that they make.

    In the last layer: behind others experts are chosen again, and a choice that an error turns has no gradient.
    """
    model, text, found = measured
    experts = model.model.layers[1].mlp.experts
    weight = getattr(experts, name)
    moments = found.experts[id(weight)]
    expected, divergence = 0.0, 0.0
    before = log_probabilities(model, text)
    for error in 0.002 * torch.randn(6, *weight.shape, generator=torch.Generator().manual_seed(1)):
        # As PyTorch has them: (num_experts, out_features, in_features).
        squares = (error.transpose(1, 2) if experts.is_transposed else error).square()
        shares = moments.outputs / moments.outputs.sum(1, keepdim=True).clamp(min=1e-30)
        expected += float(0.5 * (squares * moments.inputs[:, None] * shares[..., None]).sum())
        with torch.no_grad():
            weight += error
            after = log_probabilities(model, text)
            weight -= error
        divergence += float((before.exp() * (before - after)).sum(-1).mean())
    assert 0.6 * divergence < expected < 1.6 * divergence


def log_probabilities(model, text):
    windows = [text.ids[start : start + WINDOW] for start in range(0, TOKENS, WINDOW)]
    with torch.no_grad():
        return torch.cat([model(torch.tensor([ids])).logits[0] for ids in windows]).log_softmax(-1)


def test_what_chooses_experts_is_no_product(measured):
    """Its energies are those of what it reads, to smooth it with the experts that read the same."""
    model, text, found = measured
    router = (
        model.model.layers[1].mlp.gate
        if hasattr(model.model.layers[1].mlp, "gate")
        else model.model.layers[1].mlp.router
    )
    assert id(router.weight) not in found.products
    total = torch.zeros(64)

    def add(_, args):
        total.add_(args[0].flatten(0, -2).square().sum(0))

    handle = router.register_forward_pre_hook(add)
    log_probabilities(model, text)
    handle.remove()
    torch.testing.assert_close(found.routers[id(router.weight)], total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_mixture_meets_its_goal(model_type, tmp_path):
    build(model_type, MIXTURES[model_type]).save_pretrained(tmp_path / "checkpoint")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(), eos_token="<|end|>", pad_token="<pad>")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    report = export(str(tmp_path / "checkpoint"), tmp_path / "bundle", ExportOptions(target_bits=6.5))
    chosen = next(point for point in report.frontier if point.chosen)
    assert chosen.bits <= 6.5
    assert report.size_after <= chosen.size
    stored = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["graphs"]["decoder"]["quantization"]
    layers = {name: way for name, way in stored["products"].items() if ".experts." in name}
    graph = onnx.load(tmp_path / "bundle" / "decoder.onnx", load_external_data=False).graph
    mixtures = [{item.name: item.i for item in node.attribute} for node in graph.node if node.op_type == "QMoE"]
    ways = [f"{item['expert_weight_bits']} bit in blocks of {item['block_size']}" for item in mixtures]
    assert sorted(layers.values()) == sorted(ways)
    assert len(ways) == 2
    loses = export(str(tmp_path / "checkpoint"), tmp_path / "int4", ExportOptions(quantize="int4")).parity.quantized
    assert report.parity.quantized.mean_kl < loses.mean_kl / 2
