"""Builds transformers' config of a model from the keys of its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.dense import FALCON_OF_TWO_NORMS
from triform.export.checkpoint.gguf.architectures.mixtures import MIXTRAL
from triform.export.checkpoint.gguf.architectures.table import ARCHITECTURES
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.rope import rope_parameters
from triform.export.checkpoint.gguf.settings import Settings
from triform.export.checkpoint.gguf.vocabulary.special_tokens import special_ids
from triform.runtime.errors import ExportError, UnsupportedError

_KEY_VALUE_HEADS = "attention.head_count_kv"
_WINDOW, _SHARED = "attention.sliding_window", "expert_shared_feed_forward_length"
# How much the scale of scores grows with the position.
_TEMPERATURE = "attention.temperature_scale"
# The architecture of the part that reads images or sounds, in files of any age.
_PROJECTOR = "clip"
# Gemma's whose scores are scaled by the width of the model rather than the size of heads: the largest, by its layers.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
# Of llama.cpp, for a file of Gemma 2 that does not say.
_GEMMA2_WINDOW = 4096
# The pooling mode of each number, by sentence-transformers' name. 0 is no pooling, and 4 is for classifiers.
_POOLINGS = {1: "mean", 2: "cls", 3: "lasttoken"}


def architecture_of(file: GgufFile) -> Architecture:
    """The entry of `ARCHITECTURES` for a file.

    Raises:
        ExportError: the file is not a model but a companion of one, such as a projector or an adapter.
        UnsupportedError: the architecture is not in the table.
    """
    name, kind = file.architecture, file.values.get("general.type", "model")
    if name == _PROJECTOR:
        kind = "mmproj"
    if kind != "model":
        raise ExportError(f"{file.path.name} is only a part of a model ({kind}); give the model's own file")
    if name not in ARCHITECTURES:
        raise UnsupportedError(
            f"{file.path.name} is of the architecture {name}, which is not supported; "
            f"those that are: {', '.join(ARCHITECTURES)}"
        )
    return _with_window(file, _by_parts(file, ARCHITECTURES[name]))


def _by_parts(file: GgufFile, architecture: Architecture) -> Architecture:
    """The architecture of a file whose name is that of several, which differ in their parts."""
    name = file.architecture
    if name == "llama" and file.values.get("llama.expert_count"):
        # Mixtral's files have the architecture llama.
        return MIXTRAL
    if name == "falcon" and "blk.0.attn_norm_2.weight" in file.tensors:
        return FALCON_OF_TWO_NORMS
    if name == "falcon-h1" and "output.weight" not in file.tensors:
        # The embedding has been multiplied by one number, and the head would have been by another.
        raise ExportError(f"{file.path.name} has no output.weight, which is not supported for {name}")
    if name == "granitemoe" and file.values.get(f"{name}.{_SHARED}"):
        options = {**architecture.options, "shared_intermediate_size": _SHARED}
        return dataclasses.replace(architecture, model_type="granitemoeshared", options=options)
    if name == "mistral3" and file.values.get(f"{name}.{_TEMPERATURE}"):
        return dataclasses.replace(architecture, model_type="ministral3", biases={})
    return architecture


def _with_window(file: GgufFile, architecture: Architecture) -> Architecture:
    """The architecture of a file whose name is also that of one without sliding windows."""
    name = file.architecture
    if architecture is MIXTRAL or not file.values.get(f"{name}.{_WINDOW}"):
        return architecture
    if name == "llama":
        # Mistral's files have the architecture llama, and llama.cpp ignores their sliding windows.
        options = {**architecture.options, "sliding_window": _WINDOW}
        return dataclasses.replace(architecture, model_type="mistral", options=options, biases={})
    if name == "olmo2":
        return dataclasses.replace(architecture, model_type="olmo3", pattern=4, local_theta=0.0)
    return architecture


def gguf_config(file: GgufFile) -> PretrainedConfig:
    """The config of a model.

    Raises:
        ExportError: a key is missing, is not known, or has a value that is not supported.
        UnsupportedError: the architecture is not supported.
    """
    architecture, settings = architecture_of(file), Settings(file)
    values: dict[str, Any] = {name: settings.need(key) for name, key in architecture.sizes.items()}
    for name, key in architecture.options.items():
        value = settings.same(key)
        if value is not None:
            # In a file, 0 means no window.
            values[name] = None if key == _WINDOW and not value else value
    parts = _attention(file, architecture, settings) if architecture.attention else _states(architecture, settings)
    values |= {**parts, **architecture.constants}
    if architecture.without_attention:
        values |= _layers_with_attention(settings, architecture.without_attention)
    values |= _from_tensors(file, architecture)
    _check(settings, architecture)
    ids = special_ids(file)
    values |= {"bos_token_id": ids.bos, "eos_token_id": ids.eos}
    if ids.pad is not None or not architecture.encoder:
        values["pad_token_id"] = ids.pad
    try:
        config = CONFIG_MAPPING[architecture.model_type](**values)
    except Exception as error:  # each config of transformers has rules of its own
        reason = str(error.__cause__ or error).splitlines()[-1].strip()
        raise ExportError(
            f"the metadata of {file.path.name} is no valid config of {architecture.model_type}: {reason}"
        ) from error
    names: Mapping[str, Any] = MODEL_MAPPING_NAMES if architecture.encoder else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    config.architectures = [names[architecture.model_type]]
    return config


def pooling_of(file: GgufFile) -> str | None:
    """The pooling mode of an embedding model, by sentence-transformers' name; None if the file does not name one.

    Raises:
        ExportError: the mode is not supported.
    """
    number = int(file.values.get(f"{file.architecture}.pooling_type", 0))
    if number and number not in _POOLINGS:
        raise ExportError(f"{file.path.name} has {file.architecture}.pooling_type = {number}, which is not supported")
    return _POOLINGS.get(number)


def _attention(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Heads, positions, windows and scales."""
    width, heads = int(settings.need("embedding_length")), int(settings.need("attention.head_count"))
    head_dim = int(settings.same("attention.key_length", width // heads))
    settings.expect("attention.value_length", head_dim)
    named = {*architecture.sizes.values(), *architecture.options.values()}
    if _KEY_VALUE_HEADS not in named and not architecture.without_attention:
        settings.expect(_KEY_VALUE_HEADS, heads)
    if not architecture.rotary:
        settings.expect("attention.key_length", width // heads)
        return {}
    rope = rope_parameters(file, settings, head_dim, given=architecture.whole_rotation)
    if rope["rope_type"] == "yarn":
        rope |= architecture.rope
    if architecture.model_type == "ministral3":
        rope["llama_4_scaling_beta"] = float(settings.need(_TEMPERATURE))
    values: dict[str, Any] = {**_head_size(architecture, settings, head_dim, width // heads), "rope_parameters": rope}
    if rope["rope_type"] == "longrope":
        # A config's own value, if its class has one, would take the place of the one in the rope parameters.
        values["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    if architecture.pattern:
        values |= _windows(architecture, settings, rope)
    if file.architecture in _SCALED_BY_WIDTH:
        by_width = settings.need("block_count") == _SCALED_BY_WIDTH[file.architecture]
        values["query_pre_attn_scalar"] = width // heads if by_width else head_dim
    if "attention_multiplier" in architecture.options and not settings.same("attention.scale"):
        values["attention_multiplier"] = head_dim**-0.5
    return values


def _states(architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Sizes of states in a model without attention, whose layers are twice as wide inside."""
    settings.expect("attention.head_count", 0)
    inner = 2 * int(settings.need("embedding_length"))
    settings.expect("ssm.inner_size", inner)
    heads = architecture.sizes.get("num_heads")
    return {"expand": 2, **({"head_dim": inner // int(settings.need(heads))} if heads else {})}


def _head_size(architecture: Architecture, settings: Settings, size: int, usual: int) -> dict[str, int]:
    """The config's size of a head; nothing for a class that computes it as the usual one."""
    if not isinstance(getattr(CONFIG_MAPPING[architecture.model_type], "head_dim", None), property):
        return {"head_dim": size}
    settings.expect("attention.key_length", usual)
    return {}


def _layers_with_attention(settings: Settings, others: str) -> dict[str, Any]:
    """The type of each layer; one without keys and values is of the type `others`."""
    heads = settings.get(_KEY_VALUE_HEADS)
    heads = heads if isinstance(heads, list) else [heads] * int(settings.need("block_count"))
    settings.check_same(_KEY_VALUE_HEADS, [count for count in heads if count])
    kinds = ["full_attention" if count else others for count in heads]
    return {"layer_types": kinds, "num_key_value_heads": max(heads)}


def _windows(architecture: Architecture, settings: Settings, rope: dict[str, Any]) -> dict[str, Any]:
    layers = int(settings.need("block_count"))
    window = settings.same(_WINDOW, _GEMMA2_WINDOW if architecture.model_type == "gemma2" else None)
    pattern = settings.get("attention.sliding_window_pattern", architecture.pattern)
    if not isinstance(pattern, list):
        # As llama.cpp reads a number: 0 is windows everywhere.
        pattern = [not pattern or layer % pattern < pattern - 1 for layer in range(layers)]
    kinds = ["sliding_attention" if window and local else "full_attention" for local in pattern[:layers]]
    values: dict[str, Any] = {"sliding_window": window or None, "layer_types": kinds}
    if architecture.local_theta is None:
        settings.expect("rope.freq_base_swa", rope["rope_theta"])
        return values
    theta = settings.same("rope.freq_base_swa") or architecture.local_theta or rope["rope_theta"]
    local = {"rope_type": "default", "rope_theta": float(theta)}
    return {**values, "rope_parameters": {"full_attention": rope, "sliding_attention": local}}


def _from_tensors(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """The config's values that only the tensors show."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ExportError(f"{file.path.name} has no token_embd.weight")
    values: dict[str, Any] = {"vocab_size": embedding.shape[0]}
    if "token_types.weight" in file.tensors:
        values["type_vocab_size"] = file.tensors["token_types.weight"].shape[0]
    if not architecture.encoder:
        values["tie_word_embeddings"] = "output.weight" not in file.tensors
    return values | {name: True for name, tensor in architecture.biases.items() if tensor in file.tensors}


def _check(settings: Settings, architecture: Architecture) -> None:
    """Check that keys with a single supported value have it, and that no key is left unread."""
    settings.expect("attention.causal", not architecture.encoder)
    for key in ("expert_count", "expert_used_count"):
        if key not in architecture.sizes.values():
            settings.expect(key, 0)
    for key, value in architecture.expected.items():
        settings.expect(key, value)
    # A model whose layers all have experts may not use the size of other layers.
    # One without attention has no longest context.
    for key in ("context_length", "vocab_size", "tensor_data_layout", "pooling_type", "feed_forward_length"):
        settings.get(key)
    settings.check_all_read()
