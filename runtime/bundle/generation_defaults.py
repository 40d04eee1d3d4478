"""Ranges of the generation defaults that a manifest may hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class GenerationDefaults:
    """What the model's own generation config asks for, in its own names; None or empty where it says nothing."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    encoder_repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    exponential_decay_length_penalty: list[float] | None = None
    num_beams: int | None = None
    num_beam_groups: int | None = None
    diversity_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    min_new_tokens: int | None = None
    min_length: int | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: list[int] = field(default_factory=list)
    suppress_tokens: list[int] = field(default_factory=list)
    begin_suppress_tokens: list[int] = field(default_factory=list)
    bad_words_ids: list[list[int]] = field(default_factory=list)
    stop_strings: list[str] = field(default_factory=list)
