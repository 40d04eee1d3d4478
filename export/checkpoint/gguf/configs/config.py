"""Builds transformers' config of a model from the keys of its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.configs.attention import plain_attention, without_attention
from triform.export.checkpoint.gguf.configs.own import OWN_SETTINGS
from triform.export.checkpoint.gguf.configs.variants import WINDOW, architecture_of
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.settings import Settings
from triform.export.checkpoint.gguf.vocabulary.special_tokens import special_ids
from triform.runtime.errors import ExportError, TriformError

# The pooling mode of each number, by sentence-transformers' name. 0 is no pooling, and 4 is for classifiers.
_POOLINGS = {1: "mean", 2: "cls", 3: "lasttoken"}
# Names of transformers' classes for each form, by model type.
_CLASSES: Mapping[str, Mapping[str, Any]] = {
    "encoder": MODEL_MAPPING_NAMES,
    "decoder": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "encoder-decoder": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}


def gguf_config(file: GgufFile) -> PretrainedConfig:
    """The config of a model.

    Raises:
        ExportError: a key is missing, is not known, or has a value that is not supported.
        UnsupportedError: the architecture is not supported.
    """
    architecture = architecture_of(file)
    try:
        config = CONFIG_MAPPING[architecture.model_type](**_values(file, architecture))
    except TriformError:
        raise
    except Exception as error:  # a key may hold anything, and each config of transformers has rules of its own
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[-1].strip()
        raise ExportError(
            f"the metadata of {file.path.name} is no valid config of {architecture.model_type}: {reason}"
        ) from error
    # A decoder with a pooling was trained to give vectors, as Qwen3-Embedding was.
    names = _CLASSES["encoder" if pooling_of(file) is not None else architecture.form]
    config.architectures = [names[architecture.model_type]]
    return config


def _values(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """The arguments of the config's class."""
    settings = Settings(file)
    values: dict[str, Any] = {name: settings.need(key) for name, key in architecture.sizes.items()}
    for name, key in architecture.options.items():
        value = settings.same(key)
        if value is not None:
            # In a file, 0 means no window.
            values[name] = None if key == WINDOW and not value else value
    values |= {**_parts(file, architecture, settings), **architecture.constants}
    values |= _from_tensors(file, architecture)
    _check(settings, architecture)
    ids = special_ids(file)
    values |= {"bos_token_id": ids.bos, "eos_token_id": ids.eos}
    if ids.pad is not None or architecture.form != "encoder":
        values["pad_token_id"] = ids.pad
    return values


def pooling_of(file: GgufFile) -> str | None:
    """The pooling mode of an embedding model, by sentence-transformers' name; None if the file does not name one.

    Raises:
        ExportError: the mode is not supported.
    """
    number = int(file.values.get(f"{file.architecture}.pooling_type", 0))
    if number and number not in _POOLINGS:
        raise ExportError(f"{file.path.name} has {file.architecture}.pooling_type = {number}, which is not supported")
    return _POOLINGS.get(number)


def _parts(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """The config's values that are not those of single keys."""
    if file.architecture in OWN_SETTINGS:
        return OWN_SETTINGS[file.architecture](file, architecture, settings)
    return (plain_attention if architecture.attention else without_attention)(file, architecture, settings)


def _from_tensors(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """The config's values that only the tensors show."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ExportError(f"{file.path.name} has no token_embd.weight")
    values: dict[str, Any] = {"vocab_size": embedding.shape[0]}
    if "token_types.weight" in file.tensors:
        values["type_vocab_size"] = file.tensors["token_types.weight"].shape[0]
    if architecture.form == "decoder":
        values["tie_word_embeddings"] = "output.weight" not in file.tensors
    return values | {name: True for name, tensor in architecture.biases.items() if tensor in file.tensors}


def _check(settings: Settings, architecture: Architecture) -> None:
    """Check that keys with a single supported value have it, and that no key is left unread."""
    settings.expect("attention.causal", architecture.form == "decoder")
    for key in ("expert_count", "expert_used_count"):
        if not settings.is_read(key):
            settings.expect(key, 0)
    for key, value in architecture.expected.items():
        settings.expect(key, value)
    # A model whose layers all have experts may not use the size of other layers.
    # One without attention has no longest context.
    for key in ("context_length", "vocab_size", "tensor_data_layout", "pooling_type", "feed_forward_length"):
        settings.get(key)
    for name in architecture.dense:
        # Their tensors have these sizes.
        settings.get(f"{name}_feat_in")
        settings.get(f"{name}_feat_out")
    settings.check_all_read()
