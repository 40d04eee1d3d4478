"""Files whose architecture has the name of several: what decides, by llama.cpp's converter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triform.export.checkpoint.gguf.architectures.table import ARCHITECTURES
from triform.export.checkpoint.gguf.configs.variants import architecture_of
from triform.export.checkpoint.gguf.container import GgufFile
from triform.runtime.errors import ExportError, UnsupportedError


def found(name, tensors=(), kind=None, **keys):
    values = {"general.architecture": name, **{f"{name}.{key}": value for key, value in keys.items()}}
    if kind is not None:
        values["general.type"] = kind
    path = Path("m.gguf")
    return architecture_of(GgufFile(path, {k.replace("__", "."): v for k, v in values.items()}, dict.fromkeys(tensors)))


WINDOW = {"attention__sliding_window": 512}
TEMPERATURE = {"attention__temperature_scale": 0.1}


@pytest.mark.parametrize(
    ("name", "tensors", "keys", "model_type"),
    [
        ("llama", (), {}, "llama"),
        ("llama", (), {"expert_count": 0}, "llama"),
        ("llama", (), {"expert_count": 8}, "mixtral"),
        ("llama", (), WINDOW, "mistral"),
        ("llama", (), {"expert_count": 8} | WINDOW, "mixtral"),
        ("llama", (), {"attention__sliding_window": 0}, "llama"),
        # A number for each layer says nothing of the whole.
        ("llama", (), {"attention__sliding_window": np.array([512, 0])}, "llama"),
        ("qwen2", (), {"expert_count": 8}, "qwen2"),
        ("qwen2", (), WINDOW, "qwen2"),
        ("falcon", (), {}, "falcon"),
        ("falcon", ("blk.0.attn_norm_2.weight",), {}, "falcon"),
        ("deepseek2", (), {"expert_gating_func": 2}, "deepseek_v3"),
        ("deepseek2", (), {"expert_gating_func": 1}, "deepseek_v2"),
        ("deepseek2", (), {}, "deepseek_v2"),
        ("olmo2", (), {}, "olmo2"),
        ("olmo2", (), WINDOW, "olmo3"),
        ("granitemoe", (), {}, "granitemoe"),
        ("granitemoe", (), {"expert_shared_feed_forward_length": 9}, "granitemoeshared"),
        ("granitemoe", (), {"expert_shared_feed_forward_length": 0}, "granitemoe"),
        ("mistral3", (), {}, "mistral"),
        ("mistral3", (), TEMPERATURE, "ministral3"),
        ("t5", (), {}, "t5"),
        ("t5", ("enc.blk.1.attn_rel_b.weight",), {}, "umt5"),
        ("t5", ("enc.blk.0.attn_rel_b.weight",), {}, "t5"),
    ],
)
def test_the_model_that_a_file_is_of(name, tensors, keys, model_type):
    assert found(name, tensors, **keys).model_type == model_type


def test_falcons_with_two_norms():
    """Falcon 40B has one before attention and another before the rest."""
    one, two = found("falcon"), found("falcon", ("blk.0.attn_norm_2.weight",))
    assert "blk.{}.attn_norm_2" not in one.tensors and "blk.{}.attn_norm_2" in two.tensors


@pytest.mark.parametrize("gated", [False, True])
def test_t5_of_the_first_version_has_no_gates(gated):
    names = set(found("t5", ("enc.blk.0.ffn_gate.weight",) if gated else ()).tensors.values())
    assert ("encoder.block.{}.layer.1.DenseReluDense.wi" in names) == (not gated)


def test_windows_of_the_newer_models():
    mistral, olmo = found("llama", **WINDOW), found("olmo2", **WINDOW)
    assert mistral.options["sliding_window"] == "attention.sliding_window" and mistral.biases == {}
    assert "sliding_window" not in found("llama").options and found("llama").biases != {}
    # Every fourth layer sees everything, and all have the same positions.
    assert (olmo.pattern, olmo.local_theta) == (4, 0.0)
    assert found("mistral3", **TEMPERATURE).biases == {}
    shared = found("granitemoe", expert_shared_feed_forward_length=9)
    assert shared.options["shared_intermediate_size"] == "expert_shared_feed_forward_length"


def test_files_that_are_no_models():
    for name, kind, said in (("llama", "adapter", "adapter"), ("clip", None, "mmproj"), ("clip", "model", "mmproj")):
        with pytest.raises(
            ExportError, match=rf"^m\.gguf is only a part of a model \({said}\); give the model's own file$"
        ):
            found(name, kind=kind)
    assert found("llama", kind="model") is ARCHITECTURES["llama"]
    with pytest.raises(UnsupportedError, match=r"^m\.gguf is of the architecture nope, which is not supported; those"):
        found("nope")


def test_a_head_that_was_not_multiplied():
    """falcon-h1's embedding is multiplied by one number and its head by another."""
    with pytest.raises(ExportError, match=r"^m\.gguf has no output\.weight, which is not supported for falcon-h1$"):
        found("falcon-h1")
    assert found("falcon-h1", ("output.weight",)).model_type == "falcon_h1"
