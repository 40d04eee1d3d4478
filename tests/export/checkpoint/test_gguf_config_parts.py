"""Settings of GGUF files that several keys make: layers, windows, heads, widths and experts, key by key."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.configs.attention import plain_attention, without_attention
from triform.export.checkpoint.gguf.configs.gemma4 import gemma4
from triform.export.checkpoint.gguf.configs.latent import deepseek, latent_attention
from triform.export.checkpoint.gguf.configs.own import OWN_SETTINGS
from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.settings import Settings
from triform.runtime.errors import ExportError

FULL, LOCAL = "full_attention", "sliding_attention"


def floats(name, values):
    data = np.array(values, np.float32)
    return Tensor(name, GGMLQuantizationType.F32, data.shape, data)


def read(function, arch, architecture, keys, *tensors):
    """What a function gives for keys without the architecture's name."""
    values = {f"{arch}.{key}": value for key, value in keys.items()}
    file = SimpleNamespace(
        path=Path("m.gguf"), architecture=arch, values=values, tensors={tensor.name: tensor for tensor in tensors}
    )
    return function(file, architecture, Settings(file))


KV = {"num_key_value_heads": "attention.head_count_kv"}
PLAIN = {"embedding_length": 64, "attention.head_count": 4, "attention.head_count_kv": 2, "block_count": 5}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def plain(architecture, arch="llama", **more):
    return read(plain_attention, arch, architecture, PLAIN | {key.replace("__", "."): v for key, v in more.items()})


def llama(**more):
    return Architecture("llama", KV, {}, **more)


def test_heads():
    assert plain(llama()) == {"head_dim": 16, "rope_parameters": ROPE}
    assert plain(llama(), attention__key_length=32, attention__value_length=32)["head_dim"] == 32
    with pytest.raises(ExportError, match=r"attention\.value_length = 8, which is not supported"):
        plain(llama(), attention__value_length=8)
    # A class that does not read the number of heads of keys has as many as of queries.
    with pytest.raises(ExportError, match=r"attention\.head_count_kv = 2, which is not supported"):
        plain(Architecture("llama", {}, {}))
    assert plain(Architecture("llama", {}, {}), attention__head_count_kv=4)["head_dim"] == 16
    assert plain(Architecture("llama", {}, {}, options=KV))["head_dim"] == 16


def test_no_rotation():
    assert plain(llama(rotary=False)) == {}
    with pytest.raises(ExportError, match=r"attention\.key_length = 32"):
        plain(llama(rotary=False), attention__key_length=32)


def kinds(pattern, **more):
    found = plain(llama(pattern=pattern), attention__sliding_window=512, **more)
    return ["L" if kind == LOCAL else "F" for kind in found["layer_types"]], found["sliding_window"]


def test_windows():
    """Every layer has one but the last of each period, as llama.cpp's set_swa_pattern says."""
    assert kinds(2) == (["L", "F", "L", "F", "L"], 512)
    assert kinds(3) == (["L", "L", "F", "L", "L"], 512)
    assert kinds(2, attention__sliding_window_pattern=3)[0] == ["L", "L", "F", "L", "L"]
    assert kinds(2, attention__sliding_window_pattern=0)[0] == ["L"] * 5
    assert kinds(2, attention__sliding_window_pattern=1)[0] == ["F"] * 5
    listed = [False, True, True, False, True, True]
    assert kinds(2, attention__sliding_window_pattern=listed)[0] == ["F", "L", "L", "F", "L"]
    # 0 is no window.
    found = plain(llama(pattern=2), attention__sliding_window=0)
    assert (found["sliding_window"], found["layer_types"]) == (None, [FULL] * 5)
    assert plain(llama(pattern=2))["sliding_window"] is None
    assert plain(Architecture("gemma2", KV, {}, pattern=2), "gemma2")["sliding_window"] == 4096
    with pytest.raises(ExportError, match=r"rope\.freq_base_swa = 5\.0"):
        plain(llama(pattern=2), rope__freq_base_swa=5.0)


def test_positions_inside_windows():
    def bases(local_theta, **more):
        found = plain(llama(pattern=2, local_theta=local_theta), **more)["rope_parameters"]
        assert found[FULL] == ROPE
        return found[LOCAL]

    assert bases(0) == ROPE
    assert bases(1000.0) == {"rope_type": "default", "rope_theta": 1000.0}
    assert bases(1000.0, rope__freq_base_swa=50) == {"rope_type": "default", "rope_theta": 50.0}


@pytest.mark.parametrize(
    ("arch", "layers", "scalar"),
    [("gemma2", 46, 16), ("gemma2", 45, 32), ("gemma3", 62, 16), ("gemma3", 46, 32), ("gemma-embedding", 46, 32)],
)
def test_scores_of_the_largest_gemmas_are_scaled_by_the_width(arch, layers, scalar):
    """Gemma 2 with 27 billion parameters, and Gemma 3: query_pre_attn_scalar is hidden_size / heads."""
    gemma = Architecture("gemma2", KV, {}, pattern=2)
    found = plain(gemma, arch, block_count=layers, attention__key_length=32, attention__value_length=32)
    assert found["query_pre_attn_scalar"] == scalar


def test_scores_that_a_file_does_not_scale():
    granite = Architecture("granite", KV, {}, options={"attention_multiplier": "attention.scale"})
    assert plain(granite)["attention_multiplier"] == 0.25
    assert plain(granite, attention__scale=0.0)["attention_multiplier"] == 0.25
    assert "attention_multiplier" not in plain(granite, attention__scale=0.5)
    assert "attention_multiplier" not in plain(llama())


def test_yarn_of_an_architecture():
    ministral = Architecture("ministral3", KV, {}, rope={"beta_fast": 7.0})
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "context_length": 8}
    keys = PLAIN | {"attention.temperature_scale": 0.125}
    found = read(plain_attention, "mistral3", ministral, keys)["rope_parameters"]
    assert found == ROPE | {"llama_4_scaling_beta": 0.125}
    assert read(plain_attention, "mistral3", ministral, keys | yarn)["rope_parameters"]["beta_fast"] == 7.0


def test_layers_without_attention():
    mixed = llama(without_attention="mamba")
    found = plain(mixed, attention__head_count_kv=[0, 2, 0, 0, 2])
    assert found["layer_types"] == ["mamba", FULL, "mamba", "mamba", FULL] and found["num_key_value_heads"] == 2
    assert plain(mixed)["layer_types"] == [FULL] * 5
    with pytest.raises(ExportError, match=r"attention\.head_count_kv that differs between layers"):
        plain(mixed, attention__head_count_kv=[0, 2, 0, 4, 2])
    states = {"embedding_length": 64, "ssm.inner_size": 128, "ssm.time_step_rank": 8}
    heads = Architecture("mamba2", {"num_heads": "ssm.time_step_rank"}, {}, attention=False)
    assert read(without_attention, "mamba2", heads, states) == {"expand": 2, "head_dim": 16}
    assert read(without_attention, "mamba", Architecture("mamba", {}, {}), states) == {"expand": 2}
    for key in ("attention.head_count", "ssm.inner_size"):
        with pytest.raises(ExportError, match=rf"mamba\.{key} = 1, which is not supported"):
            read(without_attention, "mamba", Architecture("mamba", {}, {}), states | {key: 1})


LATENT = {
    "embedding_length": 64, "attention.head_count": 4, "rope.dimension_count": 8, "attention.kv_lora_rank": 12,
    "attention.key_length": 24, "context_length": 100,
}  # fmt: skip
# One head of the small vector, as llama.cpp multiplies by it.
TURNED = LATENT | {
    "attention.key_length": 20, "attention.value_length": 12, "attention.head_count_kv": 1,
    "attention.key_length_mla": 24, "attention.value_length_mla": 10,
}  # fmt: skip


def latent(keys, function=latent_attention, model_type="minicpm3"):
    return read(function, "deepseek2", Architecture(model_type, {}, {}), keys)


def test_latent_attention():
    sizes = {"num_key_value_heads": 4, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "q_lora_rank": None}
    assert latent(LATENT) == sizes | {"v_head_dim": 16, "rope_parameters": ROPE}
    assert latent(LATENT | {"attention.value_length": 10})["v_head_dim"] == 10
    assert latent(TURNED) == sizes | {"v_head_dim": 10, "rope_parameters": ROPE}
    assert latent(LATENT | {"attention.q_lora_rank": 6})["q_lora_rank"] == 6
    assert latent(LATENT | {"attention.q_lora_rank": 0})["q_lora_rank"] is None
    for changed in (
        LATENT | {"attention.head_count_kv": 1}, TURNED | {"attention.head_count_kv": 4},
        TURNED | {"attention.key_length": 24}, TURNED | {"attention.value_length": 10},
    ):  # fmt: skip
        with pytest.raises(ExportError, match="which is not supported"):
            latent(changed)
    assert latent(LATENT | {"attention.key_length": 9})["qk_nope_head_dim"] == 1
    with pytest.raises(ExportError, match=r"^m\.gguf has keys of 8 dimensions, 8 of which are rotated$"):
        latent(LATENT | {"attention.key_length": 8})


def test_experts_in_groups():
    def found(model_type="deepseek_v3", **keys):
        return latent(LATENT | {"expert_count": 64} | keys, deepseek, model_type)

    values = found()
    assert (values["n_group"], values["topk_group"]) == (1, 1)
    assert (values["routed_scaling_factor"], values["norm_topk_prob"]) == (1.0, False)
    values = found(expert_group_count=8, expert_group_used_count=3, expert_weights_scale=2.5, expert_weights_norm=True)
    assert (values["n_group"], values["topk_group"]) == (8, 3)
    assert (values["routed_scaling_factor"], values["norm_topk_prob"]) == (2.5, True)
    assert found(expert_weights_scale=0.0)["routed_scaling_factor"] == 1.0
    with pytest.raises(ExportError, match=r"^m\.gguf does not say in which groups its 65 experts are chosen"):
        found(expert_count=65)
    assert found(expert_count=65, expert_group_count=1, expert_group_used_count=3)["topk_group"] == 1
    assert found("deepseek_v2")["topk_method"] == "greedy"
    assert (
        found("deepseek_v2", expert_group_count=2, expert_group_used_count=1)["topk_method"] == "group_limited_greedy"
    )
    assert "norm_topk_prob" not in found("deepseek_v2", expert_gating_func=1)
    for key, value in (("expert_gating_func", 2), ("expert_weights_norm", True)):
        with pytest.raises(ExportError, match=rf"deepseek2\.{key} = {value}, which is not supported"):
            found("deepseek_v2", **{key: value})


GEMMA4 = {
    "block_count": 4, "attention.sliding_window_pattern": [True, True, True, False], "attention.sliding_window": 512,
    "attention.key_length": 32, "attention.key_length_swa": 16, "attention.head_count_kv": [2, 2, 2, 1],
    "attention.shared_kv_layers": 0, "feed_forward_length": 128, "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4,
}  # fmt: skip
DIVISORS = floats("rope_freqs.weight", [1, 1, 1e30, 1e30, 1e30, 1e30, 1e30, 1e30])
VALUES = floats("blk.3.attn_v.weight", [[1]])


def gemma(*tensors, **changes):
    tensors = tensors or (DIVISORS, VALUES)
    return read(gemma4, "gemma4", None, GEMMA4 | {key.replace("__", "."): v for key, v in changes.items()}, *tensors)


def test_gemma_4():
    assert gemma() == {
        "layer_types": [LOCAL] * 3 + [FULL], "sliding_window": 512, "head_dim": 16, "num_key_value_heads": 2,
        "per_layer_config": {3: {"head_dim": 32, "num_key_value_heads": 1}},
        "intermediate_size": 128, "use_double_wide_mlp": False, "attention_k_eq_v": False,
        "rope_parameters": {
            FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            LOCAL: {"rope_type": "default", "rope_theta": 1e4},
        },
    }  # fmt: skip
    assert gemma(DIVISORS)["attention_k_eq_v"] is True
    # Layers that use the values of others have none of their own.
    assert gemma(DIVISORS, attention__shared_kv_layers=1)["attention_k_eq_v"] is False
    embedding = floats("per_layer_token_embd.weight", np.zeros((7, 3)))
    assert gemma(DIVISORS, VALUES, embedding)["vocab_size_per_layer_input"] == 7
    same = gemma(attention__head_count_kv=2)
    assert same["per_layer_config"] == {3: {"head_dim": 32, "num_key_value_heads": 2}}


def test_widths_of_gemma_4():
    def widths(length, shared):
        found = gemma(feed_forward_length=length, attention__shared_kv_layers=shared)
        return found["intermediate_size"], found["use_double_wide_mlp"]

    assert widths([128, 128, 256, 256], 2) == (128, True)
    assert widths([128] * 4, 2) == (128, False)
    for length, shared in (([128, 128, 256, 256], 1), ([128, 128, 384, 384], 2), ([128, 256, 128, 128], 0)):
        with pytest.raises(ExportError, match=r"has a gemma4\.feed_forward_length that is not supported$"):
            widths(length, shared)


def test_experts_of_gemma_4():
    experts = {"expert_used_count": 2, "expert_feed_forward_length": 96}
    found = gemma(expert_count=8, **experts)
    assert found["enable_moe_block"] is True
    assert (found["num_experts"], found["top_k_experts"], found["moe_intermediate_size"]) == (8, 2, 96)
    assert "enable_moe_block" not in gemma(expert_count=0, **experts)


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        ((VALUES,), {}, "has no rope_freqs.weight"),
        ((floats("rope_freqs.weight", [1, 2]), VALUES), {}, "numbers in rope_freqs.weight that are not supported"),
        ((floats("rope_freqs.weight", [1e30, 1]), VALUES), {}, "numbers in rope_freqs.weight that are not supported"),
        ((), {"attention__sliding_window_pattern": 4}, "does not say which layers have a sliding window"),
        ((), {"attention__sliding_window_pattern": [True] * 3}, "does not say which layers have a sliding window"),
        ((), {"attention__value_length": 16}, r"attention\.value_length = 16"),
        ((), {"attention__value_length_swa": 32}, r"attention\.value_length_swa = 32"),
        ((), {"rope__dimension_count": 16}, r"rope\.dimension_count = 16"),
        ((), {"rope__dimension_count_swa": 32}, r"rope\.dimension_count_swa = 32"),
        ((), {"attention__head_count_kv": [2, 1, 2, 1]}, r"attention\.head_count_kv that differs between layers"),
        (
            (DIVISORS, VALUES),
            {
                "attention__sliding_window_pattern": [True, False, True, False],
                "attention__head_count_kv": [2, 1, 2, 1],
            },
            "has values in some of the layers without a window only",
        ),
    ],
)
def test_gemma_4_that_is_not_supported(tensors, changes, message):
    with pytest.raises(ExportError, match=message):
        gemma(*tensors, **changes)


def own(arch, keys, *tensors, **more):
    architecture = Architecture("llama", KV, {}, **more)
    return read(OWN_SETTINGS[arch], arch, architecture, keys, *tensors)


def test_delta_rules():
    keys = PLAIN | {"ssm.inner_size": 96, "ssm.time_step_rank": 8, "ssm.group_count": 4}
    rule = "linear_attention"
    found = own("qwen3next", keys)
    assert found["layer_types"] == [rule, rule, rule, FULL, rule]
    assert (found["num_hidden_layers"], found["linear_value_head_dim"]) == (5, 12)
    assert own("qwen3next", keys | {"full_attention_interval": 2})["layer_types"] == [rule, FULL, rule, FULL, rule]
    listed = {"attention.recurrent_layers": [False, True, True, True, False, True]}
    assert own("qwen3next", keys | listed)["layer_types"] == [FULL, rule, rule, rule, FULL]
    for key, value, number in (("time_step_rank", 7, 96), ("time_step_rank", 0, 96), ("group_count", 3, 8)):
        with pytest.raises(ExportError, match=rf"qwen3next\.ssm\.{key} = {value}, which does not divide {number}$"):
            own("qwen3next", keys | {f"ssm.{key}": value})


def test_granite_of_two_kinds_of_layers():
    keys = PLAIN | {"ssm.inner_size": 128, "ssm.time_step_rank": 16}
    found = own("granitehybrid", keys)
    assert (found["mamba_expand"], found["mamba_d_head"], found["position_embedding_type"]) == (2, 8, "rope")
    biases = ("attention_bias", "mamba_conv_bias", "mamba_proj_bias")
    assert [found[name] for name in biases] == [False] * 3
    assert own("granitehybrid", keys | {"rope.scaling.finetuned": False})["position_embedding_type"] is None
    for place, tensor in enumerate(("blk.1.attn_q.bias", "blk.0.ssm_conv1d.bias", "blk.0.ssm_in.bias")):
        found = own("granitehybrid", keys, floats(tensor, [1]))
        assert [found[name] for name in biases] == [place == number for number in range(3)]
    for key, value, number in (("embedding_length", 48, 128), ("ssm.time_step_rank", 5, 128)):
        with pytest.raises(ExportError, match=rf"{key} = {value}, which does not divide {number}$"):
            own("granitehybrid", keys | {key: value})


def test_gemma_3n():
    tensors = (
        floats("per_layer_token_embd.weight", np.zeros((9, 2))),
        floats("blk.0.laurel_l.weight", np.zeros((3, 8))),
    )
    keys = PLAIN | {"activation_sparsity_scale": [1.644853625, 0.0]}
    found = own("gemma3n", keys, *tensors)
    assert (found["vocab_size_per_layer_input"], found["laurel_rank"]) == (9, 3)
    # The quantile of a normal distribution: 95 % lie below 1.645 standard deviations.
    assert found["activation_sparsity_pattern"] == pytest.approx([0.95, 0.5], abs=1e-6)
    with pytest.raises(ExportError, match=r"has no gemma3n\.activation_sparsity_scale for each layer$"):
        own("gemma3n", PLAIN, *tensors)
    with pytest.raises(ExportError, match=r"has no blk\.0\.laurel_l\.weight$"):
        own("gemma3n", keys, tensors[0])


def test_modern_bert():
    keys = PLAIN | {"attention.layer_norm_epsilon": 1e-5, "attention.sliding_window": 128, "rope.freq_base": 160000.0}

    def layers(**more):
        found = own("modern-bert", keys | {key.replace("__", "."): value for key, value in more.items()})
        return ["L" if kind == LOCAL else "F" for kind in found["layer_types"]]

    # Every third layer from the first reads the whole text (Warner et al., 2024).
    assert layers() == ["F", "L", "L", "F", "L"]
    assert layers(attention__sliding_window_pattern=2) == ["F", "L", "F", "L", "F"]
    assert layers(attention__sliding_window_pattern=0) == ["F"] * 5
    assert layers(attention__sliding_window_pattern=[True] * 6) == ["L"] * 5
    assert layers(attention__sliding_window=0) == ["F"] * 5
    found = own("modern-bert", keys)
    assert found["local_attention"] == 128 and found["hidden_activation"] == "gelu"
    assert [found[name] for name in ("attention_bias", "mlp_bias", "norm_bias")] == [False] * 3
    rope = ROPE | {"rope_theta": 160000.0}
    assert found["rope_parameters"] == {FULL: rope, LOCAL: rope}
    found = own("modern-bert", keys | {"rope.freq_base_swa": 10000})
    assert found["rope_parameters"] == {FULL: rope, LOCAL: ROPE}


def test_t5():
    keys = {
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.key_length": 64,
        "context_length": 512,
        "block_count": 6,
    }
    head, gate = floats("output.weight", [[1]]), floats("enc.blk.0.ffn_gate.weight", [[1]])
    found = own("t5", keys)
    assert (found["n_positions"], found["num_decoder_layers"], found["decoder_start_token_id"]) == (512, 6, 0)
    assert own("t5", keys | {"decoder_block_count": 3})["num_decoder_layers"] == 3
    assert own("t5", keys | {"decoder_start_token_id": 2})["decoder_start_token_id"] == 2
    for tensors, tied, kind in (
        ((), True, "relu"), ((head,), False, "relu"),
        ((gate,), False, "gated-gelu"), ((gate, head), False, "gated-gelu"),
    ):  # fmt: skip
        found = own("t5", keys, *tensors)
        assert (found["tie_word_embeddings"], found["feed_forward_proj"]) == (tied, kind)


def test_single_keys_of_others():
    assert own("bloom", PLAIN | {"feed_forward_length": 256})["head_dim"] == 16
    with pytest.raises(ExportError, match=r"bloom\.feed_forward_length = 192"):
        own("bloom", PLAIN | {"feed_forward_length": 192})
    keys = PLAIN | {"rope.freq_base": 5e5, "feed_forward_length": 96, "expert_count": 16, "expert_used_count": 4}
    found = own("dbrx", keys | {"attention.clamp_kqv": 8.0})
    assert found["attn_config"] == {"kv_n_heads": 2, "rope_theta": 5e5, "clip_qkv": 8.0}
    experts = {"hidden_size": 64, "ffn_hidden_size": 96, "moe_num_experts": 16, "moe_top_k": 4}
    assert found["ffn_config"] == experts
    assert math.isclose(own("dbrx", keys)["attn_config"]["rope_theta"], 5e5)
