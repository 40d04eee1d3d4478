"""The generation defaults in a manifest."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GenerationNumbers:
    """The settings that a generation config and a manifest write alike, by transformers' names; None if not set."""

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
    renormalize_logits: bool | None = None
    min_new_tokens: int | None = None
    min_length: int | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class GenerationDefaults(GenerationNumbers):
    """The settings of the model's own generation config, by its names; None or empty if it does not set them."""

    forced_bos_token_id: int | None = None
    forced_eos_token_id: list[int] = field(default_factory=list)
    suppress_tokens: list[int] = field(default_factory=list)
    begin_suppress_tokens: list[int] = field(default_factory=list)
    bad_words_ids: list[list[int]] = field(default_factory=list)
    stop_strings: list[str] = field(default_factory=list)
