"""Config keys that transformers overlooks and that would change numbers."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from triform.export.checkpoint.config_check import check_config
from triform.export.checkpoint.files.weights import find_weights, load_tensors
from triform.export.checkpoint.loading import load_model, read_config
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.source import Source
from triform.runtime.errors import ExportError


def configured(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return read_config(find_checkpoint(str(folder)))


# For heads of 16 dimensions, which are turned in pairs.
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hidden_act": "swiglu_of_tomorrow"}, "has hidden_act swiglu_of_tomorrow, which transformers does not know"),
        ({"rope_parameters": {"rope_type": "su", "factor": 2.0, "rope_theta": 1e4}}, "has the rope type su"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "slope": 3}},
            "has slope among its rope parameters",
        ),
        (
            {"rope_parameters": LONGROPE | {"short_factor": [1.0] * 7}},
            "has 7 numbers in short_factor of its rope parameters, but its heads have 8 frequencies",
        ),
        (
            {"rope_parameters": LONGROPE | {"long_factor": [1.0] * 8, "partial_rotary_factor": 0.5}},
            "has 8 numbers in short_factor of its rope parameters, but its heads have 4 frequencies",
        ),
        ({"rope_parameters": LONGROPE | {"long_factor": [1.0]}}, "has 1 numbers in long_factor of its rope parameters"),
        ({"sliding_window": 16}, "sets sliding_window to 16, which a llama model does not honour"),
        ({"attn_logit_softcapping": 50.0}, "sets attn_logit_softcapping to 50.0"),
        ({"qk_norm": True}, "sets qk_norm to True"),
        ({"embedding_multiplier": 12.0}, "sets embedding_multiplier"),
        ({"num_local_experts": 8}, "sets num_local_experts to 8"),
        ({"quantization_config": {"quant_method": "aqlm", "nbits_per_codebook": 16}}, "are quantized by aqlm"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemv"}}, "are quantized by awq"),
    ],
)
def test_what_would_be_overlooked_is_refused_by_name(llama, changes, text):
    with pytest.raises(ExportError, match=text):
        configured(llama, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": LONGROPE},
        {"sliding_window": None},
        {"sliding_window": 640},
        {"sliding_window": 16, "use_sliding_window": False},
        {"embedding_multiplier": 1.0, "logit_scale": 1, "alibi": False},
        {"attention_multiplier": 1.0, "residual_multiplier": 1, "logits_scaling": 1.0, "scale_emb": 1},
        {"rotary_pct": 1.0, "position_embedding_type": "rotary"},
        {"attention_bias": True, "mlp_bias": True},
        {"unsloth_version": "2024.9", "_name_or_path": "x", "pretraining_tp": 2},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ],
)
def test_what_changes_nothing_or_is_honoured_passes(llama, changes):
    configured(llama, **changes)


def test_an_older_name_that_a_config_reads_is_honoured(tmp_path):
    """Pythia's share of rotated dimensions."""
    transformers.GPTNeoXConfig().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    del written["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps({**written, "rotary_pct": 0.5, "rotary_emb_base": 20000}))
    save_file({"weight": torch.zeros(10**5)}, tmp_path / "model.safetensors")
    rope = read_config(find_checkpoint(str(tmp_path))).rope_parameters
    assert (rope["partial_rotary_factor"], rope["rope_theta"]) == (0.5, 20000)


def test_families_that_have_a_key_may_set_it(tmp_path):
    for name, changes in (("Mistral", {"sliding_window": 16}), ("Gemma2", {"attn_logit_softcapping": 30.0}),
                          ("Granite", {"embedding_multiplier": 12.0}), ("Mixtral", {"num_local_experts": 2}),
                          ("Qwen3Moe", {"num_experts": 6}),
                          ("HunYuanDenseV1", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4,
                                                                  "alpha": 1000.0, "factor": 1.0}}),
                          ("Ministral3", {}),
                          ("Bert", {"position_embedding_type": "absolute"})):  # fmt: skip
        getattr(transformers, f"{name}Config")(**changes).save_pretrained(tmp_path)
        # As many numbers as the sizes of a config need, so that they are believed.
        save_file({"weight": torch.zeros(10**5)}, tmp_path / "model.safetensors")
        read_config(find_checkpoint(str(tmp_path)))


def test_weights_in_fp8_become_plain_ones(llama):
    """Blocks of 128 by 128 share a scale; here one block holds a matrix."""
    tensors = load_tensors(find_weights(llama))
    expected, stored = {}, {}
    for name, weight in tensors.items():
        if weight.dim() == 2 and "layers" in name:
            small = (weight * 3).to(torch.float8_e4m3fn)
            stored |= {name: small, f"{name}_scale_inv": torch.full([-(-size // 128) for size in weight.shape], 0.25)}
            expected[name] = small.float() * 0.25
        else:
            stored[name] = expected[name] = weight
    save_file(stored, llama / "model.safetensors")
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    config = configured(llama, quantization_config=settings)
    found = load_model(find_checkpoint(str(llama)), config, AutoModelForCausalLM).model.state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=4e-3, atol=4e-3)


def test_8_bit_floats_whose_scale_is_missing_are_refused(llama):
    """transformers takes them for the weights."""
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = load_tensors(find_weights(llama))
    tensors[name] = (tensors[name] * 3).to(torch.float8_e4m3fn)
    save_file(tensors, llama / "model.safetensors")
    config = configured(llama, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    with pytest.raises(ExportError, match=r"up_proj\.weight is stored in 8-bit floats, and no scale"):
        load_model(find_checkpoint(str(llama)), config, AutoModelForCausalLM)


class Older(transformers.PretrainedConfig):
    """A config whose class does not declare what its settings are."""

    model_type = "older"

    def __init__(self, size=3, share=0.5, flag=False, kind="x", **others):
        self.size, self.share, self.flag, self.kind = size, share, flag, kind
        super().__init__(**others)


def checked(folder, config, **written):
    (folder / "config.json").write_text(json.dumps(written))
    check_config(Source("m", folder, folder, folder), config)


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("size", 4, None), ("size", 4.0, "int"), ("size", True, "int"), ("size", "4", "int"), ("size", None, None),
        ("share", 1, None), ("share", 1.5, None), ("share", False, "float"), ("share", "1", "float"),
        ("flag", True, None), ("flag", 1, "bool"), ("flag", "true", "bool"),
        ("kind", "y", None), ("kind", 3, "str"), ("kind", ["y"], "str"), ("other", {}, None), ("_kind", 3, None),
    ],
)  # fmt: skip
def test_types_that_no_class_declares(tmp_path, key, value, kind):
    if kind is None:
        checked(tmp_path, Older(), **{key: value})
        return
    with pytest.raises(ExportError, match=rf"^the config of m says {key} is .*, but it must be a {kind}; fetch the"):
        checked(tmp_path, Older(), **{key: value})


@pytest.mark.parametrize(
    ("window", "context", "fits"), [(64, 64, True), (65, 64, True), (63, 64, False), (63, None, False)]
)
def test_a_window_as_wide_as_the_context(tmp_path, window, context, fits):
    written = {"sliding_window": window} | ({} if context is None else {"max_position_embeddings": context})
    if fits:
        checked(tmp_path, transformers.LlamaConfig(), **written)
        return
    for more in ({}, {"use_sliding_window": True}):
        with pytest.raises(
            ExportError, match=rf"^the config of m sets sliding_window to {window}, which a llama model"
        ):
            checked(tmp_path, transformers.LlamaConfig(), **written, **more)
    checked(tmp_path, transformers.LlamaConfig(), **written, use_sliding_window=False)


@pytest.mark.parametrize("place", ["sliding_attention", "full_attention"])
def test_every_kind_of_layer_has_its_own_rotary_settings(tmp_path, place):
    plain = {"rope_type": "default", "rope_theta": 1e4}
    ropes = {"sliding_attention": plain, "full_attention": plain}
    checked(tmp_path, transformers.Gemma3TextConfig(rope_parameters=ropes))
    for worse, said in (({"slope": 3}, "has slope among its rope parameters"), ({"rope_type": "su"}, "rope type su,")):
        config = transformers.Gemma3TextConfig(rope_parameters=ropes)
        config.rope_parameters = {**ropes, place: {**plain, **worse}}
        with pytest.raises(ExportError, match=said):
            checked(tmp_path, config)
        # A part of a model is looked at, too.
        whole = transformers.Gemma3Config()
        whole.text_config = config
        with pytest.raises(ExportError, match=said):
            checked(tmp_path, whole)


@pytest.mark.parametrize("nothing", [None, False, 0, "", [], {}])
def test_rotary_settings_that_say_nothing(tmp_path, nothing):
    config = transformers.LlamaConfig()
    config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "slope": nothing}
    checked(tmp_path, config)
    config.rope_parameters = {"rope_type": 3, "rope_theta": 1e4}
    with pytest.raises(ExportError, match=r"has the rope type 3, which is not a name$"):
        checked(tmp_path, config)
