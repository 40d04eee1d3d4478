"""Refuses config keys that change a model's outputs and that transformers would ignore."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping, Set
from typing import Any

from transformers import MODEL_MAPPING, PretrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from triform.export.checkpoint.files.json_files import content_of
from triform.export.checkpoint.files.packed.formats import method_of, packings_of
from triform.export.checkpoint.source import Source
from triform.runtime.errors import ExportError
from triform.runtime.printable import quoted

# Quantization methods that transformers can dequantize on any machine.
_DEQUANTIZED = ("fp8", "mxfp4")
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "encoder_hidden_act")
_ROPE_KEYS = {
    "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor", "beta_fast",
    "beta_slow", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor", "partial_rotary_factor",
    "mscale", "mscale_all_dim", "truncate", "mrope_section", "mrope_interleaved", "finetuned",
    "max_position_embeddings",
    "short_mscale", "long_mscale",
}  # fmt: skip
# Keys of some families that are known to change what a model computes, with the values that change nothing.
_CHANGING: dict[str, tuple[Any, ...]] = {
    "sliding_window": (), "attn_logit_softcapping": (), "final_logit_softcapping": (), "query_pre_attn_scalar": (),
    "attention_multiplier": (1,), "embedding_multiplier": (1,), "residual_multiplier": (1,), "logits_scaling": (1,),
    "logit_scale": (1,), "scale_emb": (1,), "scale_depth": (), "attention_bias": (), "mlp_bias": (), "qkv_bias": (),
    "use_qk_norm": (), "qk_layernorm": (), "qk_norm": (), "partial_rotary_factor": (1,), "rotary_pct": (1,),
    "no_rope_layers": (), "alibi": (), "parallel_attn": (), "num_local_experts": (), "num_experts": (),
    "position_embedding_type": ("absolute", "rotary"), "rope_scaling": (), "clip_qkv": (), "head_dim": (),
}  # fmt: skip
_NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})


def check_config(source: Source, config: PretrainedConfig) -> None:
    """Refuse settings that a model of the config's type would ignore.

    Args:
        source: where the config comes from.
        config: as transformers reads it; changed to dequantize the weights where that is possible.

    Raises:
        ExportError: names the key and its value.
    """
    _check_quantization(source, config)
    for part in _parts(config):
        for key in _ACTIVATIONS:
            value = getattr(part, key, None)
            if isinstance(value, str) and value not in ACT2FN:
                raise ExportError(f"the config of {source.name} has {key} {value}, which transformers does not know")
        own = {_rope_type(rope) for rope in _ropes(getattr(type(part)(), "rope_parameters", None))}
        for rope in _ropes(getattr(part, "rope_parameters", None)):
            _check_rope(source, rope, own, _code_of(part))
    written = content_of(source.model_folder / "config.json")
    if isinstance(written, dict):
        _check_types(source, config, written)
        _check_overlooked(source, config, written)


def check_rope_factors(name: str, config: PretrainedConfig) -> None:
    """Refuse lists of factors that are not one for each frequency of the rotary embedding.

    Args:
        name: of the checkpoint.
        config: as transformers reads it.

    Raises:
        ExportError: names the list, and the number of frequencies as transformers computes it.
    """
    for part in _parts(config):
        for rope in _ropes(getattr(part, "rope_parameters", None)):
            listed = {key: rope[key] for key in ("short_factor", "long_factor") if isinstance(rope.get(key), list)}
            if not listed:
                continue
            size = getattr(part, "head_dim", None) or part.hidden_size // part.num_attention_heads
            wanted = int(size * rope.get("partial_rotary_factor", 1.0)) // 2
            for key, factors in listed.items():
                if len(factors) != wanted:
                    raise ExportError(
                        f"the config of {name} has {len(factors)} numbers in {key} of its rope parameters, but its "
                        f"heads have {wanted} frequencies; fetch the model again"
                    )


def _check_quantization(source: Source, config: PretrainedConfig) -> None:
    quantization = getattr(config, "quantization_config", None)
    if not quantization:
        return
    settings = quantization if isinstance(quantization, dict) else quantization.to_dict()
    if packings_of(settings):
        # Weights are unpacked when they are read.
        del config.quantization_config
        return
    method = method_of(settings)
    if method not in _DEQUANTIZED:
        by = method if settings.get("quant_method") else "a method without a name, as MLX's files are,"
        raise ExportError(
            f"the weights of {source.name} are quantized by {by} (quantization_config) in a way that cannot be "
            "exported; give the checkpoint that they were made from"
        )
    config.quantization_config = {**settings, "dequantize": True}


def _rope_type(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _check_rope(source: Source, rope: Mapping[str, Any], own: Set[Any], code: str) -> None:
    """Refuse a rope type or key that neither transformers nor the model knows.

    Args:
        source: where the config comes from.
        rope: the parameters.
        own: the rope types of the config's class.
        code: of the model.
    """
    kind = _rope_type(rope)
    if not isinstance(kind, str):
        raise ExportError(f"the config of {source.name} has the rope type {quoted(kind)}, which is not a name")
    if kind != "default" and kind not in ROPE_INIT_FUNCTIONS and kind not in own:
        raise ExportError(f"the config of {source.name} has the rope type {kind}, which transformers does not know")
    for key, value in rope.items():
        if key not in _ROPE_KEYS and value not in _NOTHING and f'"{key}"' not in code:
            raise ExportError(f"the config of {source.name} has {key} among its rope parameters, which nothing reads")


def _check_types(source: Source, config: PretrainedConfig, written: Mapping[str, Any]) -> None:
    """Refuse a value of another type than its default, of a key that transformers does not check itself."""
    declared = {field.name for field in dataclasses.fields(config)}
    for key, default in type(config)().to_dict().items():
        value = written.get(key)
        if value is None or key in declared or key.startswith("_"):
            continue
        kind = next((kind for kind in (bool, int, float, str) if isinstance(default, kind)), None)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is not None and type(value) is not kind and not (kind is float and number):
            raise ExportError(
                f"the config of {source.name} says {key} is {quoted(value)}, but it must be a {kind.__name__}; "
                "fetch the model again"
            )


def _check_overlooked(source: Source, config: PretrainedConfig, written: Mapping[str, Any]) -> None:
    """Refuse a key of `_CHANGING` that neither the config's class nor the model's code mentions."""
    # A key may be written by either of its two names.
    declared = {field.name for field in dataclasses.fields(config)}
    declared |= {*config.attribute_map, *config.attribute_map.values()}
    code = _code_of(config)
    reader = vars(type(config)).get("convert_rope_params_to_dict")
    # A config's class may read older names of these settings, as GPT-NeoX's reads rotary_pct.
    code += inspect.getsource(reader) if code and inspect.isfunction(reader) else ""
    for key, harmless in _CHANGING.items():
        value = written.get(key)
        if value in (*_NOTHING, *harmless) or key in declared or not code or key in code or _is_off(key, written):
            continue
        if key == "rope_scaling" and "rope_parameters" in declared:
            continue
        raise ExportError(
            f"the config of {source.name} sets {key} to {value}, which a {config.model_type} model does not honour"
        )


def _code_of(config: PretrainedConfig) -> str:
    """The Python code of the model that a config is for, empty if there is none."""
    model_class = MODEL_MAPPING.get(type(config), None)
    return "" if model_class is None else inspect.getsource(sys.modules[_first(model_class).__module__])


def _is_off(key: str, written: Mapping[str, Any]) -> bool:
    """Whether a sliding window is switched off, or as wide as the model reads."""
    if key != "sliding_window":
        return False
    return written.get("use_sliding_window") is False or written[key] >= written.get("max_position_embeddings", 2**62)


def _first(model_class: Any) -> Any:
    return model_class[0] if isinstance(model_class, list | tuple) else model_class


def _parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """A config, and those of its sub-models."""
    yield config
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PretrainedConfig):
            yield from _parts(part)


def _ropes(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """One set of rope parameters, or one for each kind of layer."""
    if not isinstance(parameters, dict):
        return
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    yield from nested or [parameters]
