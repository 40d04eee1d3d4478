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
    """How to draw. It belongs together, so the model's defaults apply only when the user says nothing of it at all."""
    if options.penalty_alpha is not None:
        return {"temperature": 0.0}
    asked = (options.temperature, options.top_k, options.top_p)
    if any(value is not None for value in asked) or options.truncation != Truncation():
        return {"temperature": _first(options.temperature, 1.0)}
    if not defaults.do_sample:
        return {"temperature": 0.0}
    return {
        "temperature": _first(defaults.temperature, 1.0),
        "top_k": defaults.top_k,
        # 0 leaves the most likely token alone, as does the least number there is.
        "top_p": max(defaults.top_p, 1e-9) if defaults.top_p is not None else None,
        "truncation": Truncation(
            min_p=defaults.min_p,
            typical_p=defaults.typical_p or None,
            epsilon_cutoff=defaults.epsilon_cutoff,
            eta_cutoff=defaults.eta_cutoff,
        ),
    }


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
