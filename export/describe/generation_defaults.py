"""Reads a model's generation config for the manifest; for every form that generates."""

from __future__ import annotations

from typing import Any

from triform.runtime.bundle.generation_defaults import GenerationDefaults

_NUMBERS = (
    "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "num_beams", "num_beam_groups", "diversity_penalty", "length_penalty", "early_stopping",
    "renormalize_logits",
    "min_new_tokens", "min_length", "max_new_tokens", "max_length", "forced_bos_token_id",
)  # fmt: skip
_IDS = ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
# What else of a generation config changes what transformers writes, with the values that change nothing.
_WITHOUT: dict[str, tuple[Any, ...]] = {
    "sequence_bias": ({}, []), "guidance_scale": (1,), "watermarking_config": (), "token_healing": (False,),
    "top_h": (1,), "max_time": (), "penalty_alpha": (0,), "dola_layers": (), "constraints": ([],),
    "force_words_ids": ([],), "num_return_sequences": (1,),
}  # fmt: skip
# What a decoder does without: transformers reads its prompt as if it were an encoder's source.
_OF_SOURCES: dict[str, tuple[Any, ...]] = {"encoder_repetition_penalty": (1,), "encoder_no_repeat_ngram_size": (0,)}


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


def defaults_left_out(config: Any, *, has_source: bool) -> list[str]:
    """A note of each setting of a generation config that changes answers and that no bundle has.

    Args:
        config: transformers.GenerationConfig.
        has_source: whether the model answers a source that it reads by an encoder, and not a prompt.
    """
    settings = _WITHOUT if has_source else _WITHOUT | _OF_SOURCES
    values = {name: getattr(config, name, None) for name in settings}
    return [
        f"left out the generation default {name}: bundles answer without it"
        for name, harmless in settings.items()
        if values[name] not in (None, *harmless)
    ]


def _listed(ids: Any) -> list[int]:
    if ids is None:
        return []
    # Older configs, such as Whisper's, write -1 for none.
    return [int(token) for token in (ids if isinstance(ids, list | tuple) else [ids]) if int(token) >= 0]


def _texts(strings: Any) -> list[str]:
    return [strings] if isinstance(strings, str) else [str(text) for text in strings or ()]
