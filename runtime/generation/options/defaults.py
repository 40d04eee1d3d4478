"""Combines a user's options with the model's defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation

_PENALTIES = (
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
)  # fmt: skip
# The default of transformers' `generate` where neither the caller nor the model sets top_k. Its other defaults turn
# steps off, except for a maximum length of 20 tokens, which is not used here.
_TOP_K = 50


def with_defaults(options: GenerationOptions, defaults: GenerationDefaults) -> GenerationOptions:
    """Fill in the options that the user did not set, except for the lengths: see `lengths_of`.

    Args:
        options: the user's.
        defaults: from the model's generation config.

    Returns:
        options whose `temperature` is a number; 0 means that the most likely token is always taken.
    """
    return dataclasses.replace(
        options,
        stop=options.stop or tuple(defaults.stop_strings),
        penalties=_penalties(options.penalties, defaults),
        constraints=_constraints(options.constraints, defaults),
        **_sampling(options, defaults),
    )


@dataclass(frozen=True)
class Lengths:
    """The minimum and maximum number of tokens of an answer, None where neither the user nor the model sets one.

    Attributes:
        least: minimum, from the user or the model.
        most: maximum, from the user or the model.
        shortest: the model's minimum with the prompt included, for when `least` is None.
        longest: the model's maximum with the prompt included, for when `most` is None.
        given: whether `most` is the user's.
    """

    least: int | None
    most: int | None
    shortest: int | None
    longest: int | None
    given: bool

    def after(self, prompt_length: int) -> tuple[int | None, int | None]:
        """The minimum and maximum number of tokens of an answer to a prompt of `prompt_length` tokens."""
        least, most = self.least, self.most
        if least is None and self.shortest is not None:
            least = max(self.shortest - prompt_length, 0)
        if most is None and self.longest is not None and self.longest > prompt_length:
            most = self.longest - prompt_length
        if most is not None and least is not None and least > most:
            # The user's limit overrides the model's, whichever of the two it is.
            return (min(least, most), most) if self.given else (least, least)
        return least, most


def lengths_of(options: GenerationOptions, defaults: GenerationDefaults) -> Lengths:
    """The length limits of a call.

    Args:
        options: the user's.
        defaults: from the model's generation config.
    """
    return Lengths(
        _first(options.min_new_tokens, defaults.min_new_tokens),
        _first(options.max_new_tokens, defaults.max_new_tokens),
        defaults.min_length,
        defaults.max_length,
        options.max_new_tokens is not None,
    )


def _sampling(options: GenerationOptions, defaults: GenerationDefaults) -> dict[str, Any]:
    """The sampling options: the user's, else the model's, else the default of transformers' `generate`."""
    values = (options.temperature, options.top_k, options.top_p)
    by_user = any(value is not None for value in values) or options.truncation != Truncation()
    by_model = bool(defaults.do_sample) and defaults.temperature != 0
    if options.penalty_alpha is not None or options.temperature == 0 or not (by_user or by_model):
        return {"temperature": 0.0}
    temperature = _first(options.temperature, defaults.temperature or 1.0)
    if options.truncation.mirostat_tau is not None:
        # Mirostat replaces every other truncation.
        return {"temperature": temperature}
    return {
        "temperature": temperature,
        "top_k": _first(options.top_k, _first(defaults.top_k, _TOP_K)),
        # A top_p of 0 keeps the most likely token alone, as a tiny one does.
        "top_p": _first(options.top_p, None if defaults.top_p is None else max(defaults.top_p, 1e-9)),
        "truncation": _truncation(options.truncation, defaults),
    }


def _truncation(truncation: Truncation, defaults: GenerationDefaults) -> Truncation:
    return dataclasses.replace(
        truncation,
        min_p=_first(truncation.min_p, defaults.min_p),
        typical_p=_first(truncation.typical_p, defaults.typical_p or None),
        epsilon_cutoff=_first(truncation.epsilon_cutoff, defaults.epsilon_cutoff),
        eta_cutoff=_first(truncation.eta_cutoff, defaults.eta_cutoff),
    )


def _penalties(penalties: Penalties, defaults: GenerationDefaults) -> Penalties:
    values: dict[str, Any] = {name: _first(getattr(penalties, name), getattr(defaults, name)) for name in _PENALTIES}
    decay = defaults.exponential_decay_length_penalty
    if penalties.exponential_decay_length_penalty is None and decay is not None:
        values["exponential_decay_length_penalty"] = (int(decay[0]), decay[1])
    return dataclasses.replace(penalties, **values)


def _constraints(constraints: Constraints, defaults: GenerationDefaults) -> Constraints:
    bad_words = tuple(tuple(word) for word in defaults.bad_words_ids)
    return dataclasses.replace(
        constraints,
        bad_words_ids=_first(constraints.bad_words_ids, bad_words),
        suppress_tokens=_first(constraints.suppress_tokens, tuple(defaults.suppress_tokens)),
        begin_suppress_tokens=_first(constraints.begin_suppress_tokens, tuple(defaults.begin_suppress_tokens)),
        forced_bos_token_id=_first(constraints.forced_bos_token_id, defaults.forced_bos_token_id),
        forced_eos_token_id=_first(constraints.forced_eos_token_id, tuple(defaults.forced_eos_token_id)),
    )


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value
