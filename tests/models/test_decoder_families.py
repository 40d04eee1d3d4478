"""Every decoder family's float graph equals PyTorch, for prefill, chunks, steps and ragged batches."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING

from tests.checkpoints.decoder_families import CONTEXT, FAMILIES, ROPES, VOCAB, build, rope_config
from tests.helpers.families import families
from triform.export.graph.cache import cache_info
from triform.export.graph.fusion import fuse
from triform.export.graph.nodes import attribute, nodes
from triform.export.graph.tracing import trace
from triform.export.quantize.blocks import lower_to_float
from triform.export.runners import DecoderRunner
from triform.export.verify.decoder import reference_logits, verify_decoder
from triform.export.write import write_graph
from triform.models.attention.rotary import rotary_modules
from triform.models.catalog import form_of
from triform.models.decoder.graph import decoder_spec
from triform.models.errors import UnsupportedModelError


def exported(model, folder, ids):
    """The runner of the model's float graph, PyTorch's logits, and the graph itself."""
    expected = reference_logits(model, ids)
    spec, prepared = decoder_spec(model, CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    notes = dict(spec.notes)
    lower_to_float(graph)
    write_graph(graph, folder / "decoder.onnx")
    return DecoderRunner(folder / "decoder.onnx", cache_info(spec), 2), expected, graph, notes


def some_ids(count):
    return torch.randint(0, VOCAB, (count,), generator=torch.Generator().manual_seed(1)).tolist()


# Each is built like another one here, with other norms, activations or names of weights.
MORE_FAMILIES = {
    "qwen2", "qwen3", "phi", "opt", "smollm3", "olmo2", "granite", "starcoder2", "qwen3_moe", "gpt_neox, sequential",
    "latent attention, without experts", "biogpt", "falcon", "falcon, one norm", "gpt_neo", "openai-gpt",
    "gpt_neox_japanese", "trocr", "git",
}  # fmt: skip


@pytest.mark.parametrize("family", families(FAMILIES, MORE_FAMILIES))
def test_family_matches_pytorch(family, tmp_path):
    model = build(*FAMILIES[family])
    ids = some_ids(90)
    runner, expected, graph, notes = exported(model, tmp_path, ids)
    verify_decoder(runner, expected, ids)
    counts = graph_counts(graph)
    assert counts["GroupQueryAttention"] == model.config.num_hidden_layers
    rotary = "native" if family in KEEPS_ROTATION else "fused"
    assert notes["rotary"] == (rotary if rotary_modules(model) else "none")
    # Nothing is left of the splitting and merging of heads.
    assert counts.get("Transpose", 0) == 0 or family in KEEPS_TRANSPOSES


# Fused projections whose heads interleave q, k and v, or are clipped before they are split (mpt), need a transpose to
# take them apart.
KEEPS_TRANSPOSES = {
    "gpt_neox", "gpt_neox, sequential", "latent attention", "latent attention, without experts",
    "rotation by complex numbers", "rotation of 8 channels", "window that no layer uses", "sparse activations",
    "gated attention", "bloom", "falcon", "falcon, many keys", "falcon, two norms", "falcon, one norm",
    "falcon, linear biases", "gpt_neox_japanese", "mpt",
    "biases of keys", "heads of 12 channels",
}  # fmt: skip
# The operator takes neither tables of 4 columns nor keys of which only the end is rotated; Gemma 3n and 4 rotate
# queries and keys by functions of their own.
KEEPS_ROTATION = {
    "rotation of 8 channels", "latent attention", "latent attention, without experts", "shared keys and values",
    "sparse activations", "rotation by complex numbers", "heads of 12 channels",
}  # fmt: skip


def graph_counts(graph):
    counts: dict[str, int] = {}
    for node in graph.graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_let_through(family):
    model_type, settings = FAMILIES[family]
    assert form_of(CONFIG_MAPPING[model_type](**settings), "text-generation") == "decoder"


@pytest.mark.parametrize("rope", ROPES)
def test_rope_scaling_matches_pytorch(rope, tmp_path):
    settings = rope_config(rope)
    if rope == "dynamic":
        settings["max_position_embeddings"] = 64
    model = build("llama", settings)
    ids = some_ids(60)
    runner, expected, _, notes = exported(model, tmp_path, ids)
    verify_decoder(runner, expected, ids)
    assert notes["rotary"] == ("native" if rope in ("dynamic", "longrope") else "fused")
    # Past the original context frequencies change with the length, so only a single run has a reference.
    long = some_ids(200)
    want = reference_logits(model, long)
    runner.start(1, len(long))
    logits, _ = runner.feed(torch.tensor([long]).numpy(), torch.arange(len(long))[None].numpy())
    assert abs(logits[0] - want).max() <= 5e-4 * abs(want).max()


def test_projections_are_packed(tmp_path):
    model = build(*FAMILIES["llama"])
    _, _, graph, _ = exported(model, tmp_path, some_ids(20))
    counts = graph_counts(graph)
    # Per layer: q, k and v in one; attention output; gate and up in one; down. Then the head.
    assert counts["FusedMatMul"] == 3 * 4 + 1
    assert counts["SkipSimplifiedLayerNormalization"] == 3 * 2
    assert counts["QuickGelu"] == 3
    assert all(node.inputs[1] is None for node in nodes(graph.graph, "GroupQueryAttention"))


def test_window_and_softcap_reach_the_operator(tmp_path):
    model = build(*FAMILIES["gemma2"])
    _, _, graph, _ = exported(model, tmp_path, some_ids(20))
    attention = nodes(graph.graph, "GroupQueryAttention")
    windows = [attribute(node, "local_window_size", -1) for node in attention]
    assert windows == [24, -1, 24]
    assert [attribute(node, "softcap") for node in attention] == [3.0] * 3


def test_attention_of_its_own_is_refused():
    model = build(
        "xlnet", {"vocab_size": VOCAB, "d_model": 24, "d_inner": 40, "n_layer": 1, "n_head": 2, "attn_type": "uni"}
    )
    with pytest.raises(UnsupportedModelError, match="its attention is code of its own"):
        decoder_spec(model, 64)
