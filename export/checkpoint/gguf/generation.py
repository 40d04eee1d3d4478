"""Builds the generation config of a model: how to sample, and which tokens end an answer."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.vocabulary.special_tokens import special_ids

_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}


def generation_config(file: GgufFile, base: GenerationConfig) -> GenerationConfig:
    """The generation config of a model.

    Args:
        file: the model's.
        base: to begin with.
    """
    ids = special_ids(file)
    base.bos_token_id, base.pad_token_id = ids.bos, ids.pad
    base.eos_token_id = ids.ends or None
    values: dict[str, Any] = {name: file.values[key] for key, name in _SAMPLING.items() if key in file.values}
    if values:
        # llama.cpp samples unless the temperature is 0.
        base.do_sample = float(values.get("temperature", 1.0)) > 0
    for name, value in values.items():
        setattr(base, name, value)
    suppressed = file.values.get("tokenizer.ggml.suppress_tokens")
    if suppressed is not None:
        base.suppress_tokens = [int(token) for token in suppressed]
    return base
