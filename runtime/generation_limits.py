"""Ranges of the generation defaults that a manifest may hold."""

from __future__ import annotations

import math
from collections.abc import Iterator

from triform.runtime.manifest import GenerationDefaults

_NOT_NEGATIVE = (
    "temperature", "top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "diversity_penalty",
    "min_new_tokens", "min_length",
)  # fmt: skip
_SHARES = ("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_COUNTS = ("num_beams", "num_beam_groups", "max_new_tokens", "max_length")
_POSITIVE = ("repetition_penalty", "encoder_repetition_penalty")
_IDS = ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")


def generation_limits(defaults: GenerationDefaults) -> Iterator[tuple[str, object, bool, str]]:
    """Every value whose range matters: its key, itself, whether it fits, and what would."""
    # Written so that NaN, which Python's JSON reader lets through, fits nowhere.
    for name in _NOT_NEGATIVE:
        value = getattr(defaults, name)
        yield f"generation.{name}", value, value is None or 0 <= value < math.inf, "0 or more"
    for name in _SHARES:
        value = getattr(defaults, name)
        yield f"generation.{name}", value, value is None or 0 <= value <= 1, "between 0 and 1"
    for name in _COUNTS:
        value = getattr(defaults, name)
        yield f"generation.{name}", value, value is None or value >= 1, "at least 1"
    for name in _POSITIVE:
        value = getattr(defaults, name)
        yield f"generation.{name}", value, value is None or 0 < value < math.inf, "above 0"
    decay = defaults.exponential_decay_length_penalty
    fits = decay is None or (len(decay) == 2 and 0 <= decay[0] < math.inf and 0 < decay[1] < math.inf)
    yield "generation.exponential_decay_length_penalty", decay, fits, "a number of tokens and a factor above 0"
    early = defaults.early_stopping
    yield "generation.early_stopping", early, not isinstance(early, str) or early == "never", "true, false or never"
    yield from _text_limits(defaults)


def _text_limits(defaults: GenerationDefaults) -> Iterator[tuple[str, object, bool, str]]:
    for name in _IDS:
        value = getattr(defaults, name)
        yield f"generation.{name}", value, min(value, default=0) >= 0, "token ids of 0 or more"
    bos = defaults.forced_bos_token_id
    yield "generation.forced_bos_token_id", bos, bos is None or bos >= 0, "a token id of 0 or more"
    words = defaults.bad_words_ids
    fits = all(min(word, default=-1) >= 0 for word in words)
    yield "generation.bad_words_ids", words, fits, "lists of at least one token id of 0 or more"
    yield "generation.stop_strings", defaults.stop_strings, all(defaults.stop_strings), "texts that are not empty"
