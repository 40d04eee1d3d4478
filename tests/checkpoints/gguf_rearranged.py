"""What llama.cpp's converter changes in the tensors of some families, beside their names."""

from __future__ import annotations

from typing import Any

import numpy as np
from gguf import MODEL_ARCH

_SHIFTED = (MODEL_ARCH.QWEN35, MODEL_ARCH.QWEN35MOE, MODEL_ARCH.QWEN3NEXT)
_TILED = (MODEL_ARCH.QWEN35, MODEL_ARCH.QWEN35MOE)
# Tensors with a name of their own end in it.
SUFFIXES = {"altup.correct_output_scale": ".weight", "layer_scalar": ".weight"}


def of_delta_rule(kind: MODEL_ARCH, config: Any, name: str, array: np.ndarray) -> np.ndarray:
    """Norms with 1 added, and heads of values in the order in which the heads of keys are repeated as a whole."""
    if kind in _SHIFTED and name.endswith("norm.weight") and ".linear_attn." not in name:
        return array + 1
    if kind not in _TILED or ".linear_attn." not in name:
        return array
    keys, size = config.linear_num_key_heads, config.linear_value_head_dim
    if name.endswith("out_proj.weight"):
        return _tiled(array.T, keys, size).T
    if ".in_proj_qkv." in name or ".conv1d." in name:
        start = 2 * keys * config.linear_key_head_dim
        return np.concatenate([array[:start], _tiled(array[start:], keys, size)])
    if ".in_proj_z." in name:
        return _tiled(array, keys, size)
    return array if ".norm." in name else _tiled(array, keys, 1)


def _tiled(array: np.ndarray, keys: int, size: int) -> np.ndarray:
    heads = array.reshape(keys, -1, size, *array.shape[1:])
    return heads.swapaxes(0, 1).reshape(array.shape)


def taken_apart(kind: MODEL_ARCH, config: Any, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors that the converter makes of a parameter, by name; nothing if it is one tensor."""
    layer = next((part for part in name.split(".") if part.isdecimal()), "")
    if name.endswith("in_proj_qkvz.weight"):
        keys, key = config.linear_num_key_heads, config.linear_key_head_dim
        share = config.linear_num_value_heads // keys * config.linear_value_head_dim
        heads = array.reshape(keys, -1, array.shape[1])
        parts = np.split(heads, np.cumsum([key, key, share]), axis=1)
        query, key_, value, gate = (part.reshape(-1, array.shape[1]) for part in parts)
        return {
            f"blk.{layer}.attn_qkv.weight": np.concatenate([query, key_, value]),
            f"blk.{layer}.attn_gate.weight": gate,
        }
    if kind is MODEL_ARCH.DEEPSEEK2 and ".kv_b_proj." in name:
        heads = array.reshape(config.num_attention_heads, -1, array.shape[1])
        keys, values = np.split(heads, [config.qk_nope_head_dim], axis=1)
        return {f"blk.{layer}.attn_k_b.weight": keys.swapaxes(1, 2), f"blk.{layer}.attn_v_b.weight": values}
    if kind is MODEL_ARCH.DBRX and ".experts." in name:
        experts = array.reshape(5, -1, array.shape[1])
        part = {"w1": "gate", "v1": "up", "w2": "down"}[name[-2:]]
        return {f"blk.{layer}.ffn_{part}_exps.weight": experts.swapaxes(1, 2) if part == "down" else experts}
    if kind is MODEL_ARCH.GEMMA4 and name.endswith("experts.gate_up_proj"):
        return {f"blk.{layer}.ffn_gate_up_exps.weight": array}
    own = {"router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale"}
    return {f"blk.{layer}.{new}": array for old, new in own.items() if name.endswith(old)}


def stacked(model: Any) -> dict[str, np.ndarray]:
    """One tensor for several parameters, and those that no parameter has."""
    found = {}
    for name, new in {"altup_projections": "altup_proj", "altup_unembed_projections": "altup_unembd_proj"}.items():
        if hasattr(model.base_model, name):
            found[f"{new}.weight"] = np.stack(
                [part.weight.detach().numpy() for part in getattr(model.base_model, name)]
            )
    if model.config.model_type == "gemma4_text":
        # A quarter of the eight frequencies is used.
        found["rope_freqs.weight"] = np.array([1, 1, *[1e30] * 6], np.float32)
    return found


def layer_keys(model: Any) -> dict[str, Any]:
    """Keys without the architecture's name, that have a number for each layer."""
    if model.config.model_type != "apertus":
        return {}
    functions = [layer.mlp.act_fn for layer in model.model.layers]
    return {
        f"xielu.{name}": [float(getattr(function, name).detach()) for function in functions]
        for name in ("alpha_n", "alpha_p", "beta", "eps")
    }
