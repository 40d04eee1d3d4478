"""What a user may ask of one generation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.checks import (
    MOST_TOKENS,
    STRONGEST,
    above_zero,
    at_least_one,
    at_most,
    check,
    check_one_of,
    not_negative,
    whole_from_zero,
)
from triform.runtime.generation.options.conflicts import check_conflicts
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.generation.options.step_order import check_order

__all__ = ["Constraints", "GenerationOptions", "Penalties", "Truncation"]

# A seed is one half of a Philox key.
_SEEDS = 2**64
Speculate = Literal["auto", "lookup", "off"]
OnOverflow = Literal["error", "shift"]


@dataclass(frozen=True)
class GenerationOptions:
    """Checked once, at the edge; nothing below it guesses.

    Attributes:
        max_new_tokens: at least 1; when None, what the model says, or up to its context.
        temperature: divides the logits; 0 takes the most likely token always.
        top_k: sample from the k most likely tokens; 0 means all.
        top_p: sample from the fewest tokens that together reach this probability, in (0, 1].
        seed: makes sampling repeatable, below 2**64; fresh randomness when None.
        min_new_tokens: do not end before so many.
        stop: texts that end the generation and are not shown.
        stop_token: tokens that end the generation beside the model's own, each an id, or the text of one token.
        logprobs: how many of the likeliest tokens to report beside each generated one; 0 reports that alone, None none.
        truncation: further ways to cut off unlikely tokens.
        penalties: against repetition, and for an end.
        constraints: tokens to ban, to force, or to shift.
        order: steps to apply in another order, by name; see `step_order`.
        speculate: whether to try tokens copied from what was there before, several in one run: "lookup", "off", or
            "auto": those of a draft where there is one (`Decoder.use_draft`); copied ones when the most likely token is
            taken always and no rounding of activations to 8 bits can make the tokens others than those of one at a
            time. Of decoders only.
        on_overflow: what to do when the model's context is full: "error" refuses a prompt that is too long and ends an
            answer that becomes so; "shift" drops the oldest tokens and goes on. Of decoders only.
        keep: tokens at the start of the prompt that "shift" never drops; 0 when None.
        penalty_alpha: take, of the top_k likeliest tokens, one that does not resemble those before it, and weigh the
            resemblance by this, above 0 and below 1; see `ContrastiveSearch`. Nothing is drawn. Of decoders only.

    Values that are None are the model's own, or off. Where temperature, top_k, top_p and truncation say nothing, the
    model's generation config decides whether to sample. Where tokens are sampled and neither says what top_k is, it is
    50, as in transformers.

    Raises:
        InputError: a value is out of range or of another type, or two contradict each other.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    min_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token: tuple[int | str, ...] = ()
    logprobs: int | None = None
    truncation: Truncation = field(default_factory=Truncation)
    penalties: Penalties = field(default_factory=Penalties)
    constraints: Constraints = field(default_factory=Constraints)
    order: tuple[str, ...] = ()
    speculate: Speculate = "auto"
    on_overflow: OnOverflow = "error"
    keep: int | None = None
    penalty_alpha: float | None = None

    def __post_init__(self) -> None:
        check(self, at_least_one(), "max_new_tokens")
        check(self, not_negative(), "temperature")
        check(self, at_most(STRONGEST), "temperature")
        check(self, at_most(MOST_TOKENS), "max_new_tokens", "min_new_tokens", "top_k", "keep")
        check(self, whole_from_zero(), "top_k", "min_new_tokens", "logprobs", "keep")
        check(self, above_zero(1), "top_p")
        check(self, whole_from_zero(_SEEDS), "seed")
        if isinstance(self.stop, str) or any(not isinstance(text, str) or not text for text in self.stop):
            raise InputError(f"{option('stop')} must be a text that is not empty")
        _check_stop_token(self.stop_token)
        check_order(self.order)
        check_one_of(self, get_args(Speculate), "speculate")
        check_one_of(self, get_args(OnOverflow), "on_overflow")
        if self.penalty_alpha is not None:
            above_zero().judge("penalty_alpha", self.penalty_alpha)
            if self.penalty_alpha >= 1:
                raise InputError(f"{option('penalty_alpha')} must be below 1, not {self.penalty_alpha}")
        check_conflicts({**vars(self), **vars(self.truncation)})


def _check_stop_token(given: object) -> None:
    if isinstance(given, str | int) or not isinstance(given, Iterable):
        raise InputError(f"{option('stop_token')} must be a list of token ids and texts, not {given!r:.60}")
    for token in given:
        if not isinstance(token, str):
            whole_from_zero().judge("stop_token", token)
        elif not token:
            raise InputError(f"{option('stop_token')} must be a token id or a text that is not empty")
