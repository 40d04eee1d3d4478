"""Reads a model's generation config for the manifest; for every form that generates."""

from __future__ import annotations

from typing import Any

from triform.runtime.bundle.generation_defaults import GenerationDefaults

_NUMBERS = (
    "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "num_beams", "num_beam_groups", "diversity_penalty", "length_penalty", "early_stopping",
    "min_new_tokens", "min_length", "max_new_tokens", "max_length", "forced_bos_token_id",
)  # fmt: skip
_IDS = ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")


def generation_defaults(config: Any) -> GenerationDefaults:
    """Translate transformers' generation config.

    Args:
        config: transformers.GenerationConfig; what it leaves at None stays None.
    """
    values: dict[str, Any] = {name: getattr(config, name, None) for name in _NUMBERS}
    values |= {name: _listed(getattr(config, name, None)) for name in _IDS}
    decay = getattr(config, "exponential_decay_length_penalty", None)
    return GenerationDefaults(
        **values,
        exponential_decay_length_penalty=None if decay is None else [float(part) for part in decay],
        bad_words_ids=[[int(token) for token in word] for word in getattr(config, "bad_words_ids", None) or ()],
        stop_strings=_texts(getattr(config, "stop_strings", None)),
    )


def _listed(ids: Any) -> list[int]:
    if ids is None:
        return []
    # Older configs, such as Whisper's, write -1 for none.
    return [int(token) for token in (ids if isinstance(ids, list | tuple) else [ids]) if int(token) >= 0]


def _texts(strings: Any) -> list[str]:
    return [strings] if isinstance(strings, str) else [str(text) for text in strings or ()]
