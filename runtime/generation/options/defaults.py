"""A user's options and a model's defaults become one set of options."""

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
# What transformers' `generate` takes where neither its caller nor the model says anything. Its other defaults turn
# steps off, except for the length of 20 tokens, which nobody means.
_TOP_K = 50


def with_defaults(options: GenerationOptions, defaults: GenerationDefaults) -> GenerationOptions:
    """Fill in what the user left open, but for the lengths: see `lengths_of`.

    Args:
        options: what the user asked for.
        defaults: what the model's generation config says.

    Returns:
        options of which `temperature` is a number, 0 for the most likely token always.
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
    """The least and the most tokens of an answer, as far as the user and the model say.

    Attributes:
        least: by the user or the model.
        most: by the user or the model.
        shortest: by the model, the prompt included; where `least` is None.
        longest: by the model, the prompt included; where `most` is None.
        given: whether `most` is the user's.
    """

    least: int | None
    most: int | None
    shortest: int | None
    longest: int | None
    given: bool

    def after(self, prompt_length: int) -> tuple[int | None, int | None]:
        """The least and the most tokens of an answer to a prompt of so many."""
        least, most = self.least, self.most
        if least is None and self.shortest is not None:
            least = max(self.shortest - prompt_length, 0)
        if most is None and self.longest is not None and self.longest > prompt_length:
            most = self.longest - prompt_length
        if most is not None and least is not None and least > most:
            # The user's limit holds, and the model's gives way, whichever of the two that is.
            return (min(least, most), most) if self.given else (least, least)
        return least, most


def lengths_of(options: GenerationOptions, defaults: GenerationDefaults) -> Lengths:
    """How long answers are to be.

    Args:
        options: what the user asked for.
        defaults: what the model's generation config says.
    """
    return Lengths(
        _first(options.min_new_tokens, defaults.min_new_tokens),
        _first(options.max_new_tokens, defaults.max_new_tokens),
        defaults.min_length,
        defaults.max_length,
        options.max_new_tokens is not None,
    )


def _sampling(options: GenerationOptions, defaults: GenerationDefaults) -> dict[str, Any]:
    """How to draw. Each value is the user's, else the model's, else the one that transformers' `generate` fills in."""
    asked = (options.temperature, options.top_k, options.top_p)
    draws = any(value is not None for value in asked) or options.truncation != Truncation()
    own = bool(defaults.do_sample) and defaults.temperature != 0
    if options.penalty_alpha is not None or options.temperature == 0 or not (draws or own):
        return {"temperature": 0.0}
    temperature = _first(options.temperature, defaults.temperature or 1.0)
    if options.truncation.mirostat_tau is not None:
        # It replaces every other truncation.
        return {"temperature": temperature}
    return {
        "temperature": temperature,
        "top_k": _first(options.top_k, _first(defaults.top_k, _TOP_K)),
        # 0 leaves the most likely token alone, as does the least number there is.
        "top_p": _first(options.top_p, None if defaults.top_p is None else max(defaults.top_p, 1e-9)),
        "truncation": _truncation(options.truncation, defaults),
    }


def _truncation(asked: Truncation, defaults: GenerationDefaults) -> Truncation:
    return dataclasses.replace(
        asked,
        min_p=_first(asked.min_p, defaults.min_p),
        typical_p=_first(asked.typical_p, defaults.typical_p or None),
        epsilon_cutoff=_first(asked.epsilon_cutoff, defaults.epsilon_cutoff),
        eta_cutoff=_first(asked.eta_cutoff, defaults.eta_cutoff),
    )


def _penalties(asked: Penalties, defaults: GenerationDefaults) -> Penalties:
    found: dict[str, Any] = {name: _first(getattr(asked, name), getattr(defaults, name)) for name in _PENALTIES}
    decay = defaults.exponential_decay_length_penalty
    if asked.exponential_decay_length_penalty is None and decay is not None:
        found["exponential_decay_length_penalty"] = (int(decay[0]), decay[1])
    return dataclasses.replace(asked, **found)


def _constraints(asked: Constraints, defaults: GenerationDefaults) -> Constraints:
    banned = tuple(tuple(word) for word in defaults.bad_words_ids)
    return dataclasses.replace(
        asked,
        bad_words_ids=_first(asked.bad_words_ids, banned),
        suppress_tokens=_first(asked.suppress_tokens, tuple(defaults.suppress_tokens)),
        begin_suppress_tokens=_first(asked.begin_suppress_tokens, tuple(defaults.begin_suppress_tokens)),
        forced_bos_token_id=_first(asked.forced_bos_token_id, defaults.forced_bos_token_id),
        forced_eos_token_id=_first(asked.forced_eos_token_id, tuple(defaults.forced_eos_token_id)),
    )


def _first(asked: Any, otherwise: Any) -> Any:
    return otherwise if asked is None else asked
