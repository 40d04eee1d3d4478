"""The options of one generation."""

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
    check_is,
    check_list_of_texts,
    check_one_of,
    not_negative,
    whole_from_zero,
)
from triform.runtime.generation.options.conflicts import GREEDY, UNASKED_GREEDY, check_conflicts
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.generation.options.step_order import check_order

__all__ = ["Constraints", "GenerationOptions", "Penalties", "Truncation"]

# A seed is one half of a Philox key.
_SEEDS = 2**64
Speculate = Literal["auto", "lookup", "off"]
OnOverflow = Literal["error", "shift"]


@dataclass(frozen=True)
class GenerationOptions:
    """Options of one generation, checked when they are made.

    Attributes:
        max_new_tokens: at least 1; when None, the model's default, or as many as fit into its context.
        temperature: divides the logits; 0 always takes the most likely token.
        top_k: sample from the k most likely tokens; 0 means all.
        top_p: sample from the fewest tokens whose probabilities sum to at least this, in (0, 1].
        seed: makes sampling repeatable, below 2**64; a random one when None.
        min_new_tokens: the answer has at least this many tokens.
        stop: stop sequences: texts that end the generation and are not shown.
        stop_token: tokens that end the generation besides the model's own, each an id or the text of one token.
        logprobs: number of most likely tokens to report with each generated one; 0 reports only the generated token's
            log-probability, None reports nothing.
        truncation: further ways to cut off unlikely tokens.
        penalties: against repetition, and for an end.
        constraints: tokens to ban, force or bias, and the form of the answer.
        order: names of steps in the order in which to apply them; see `step_order`.
        speculate: speculative decoding, for decoders only. "lookup" proposes tokens copied from earlier in the text
            (prompt lookup); "off" proposes none. "auto" uses the draft model if there is one (`Decoder.use_draft`),
            else prompt lookup when decoding is greedy and rounding activations to 8 bits cannot change the tokens.
        on_overflow: what to do when the model's context is full, for decoders only: "error" refuses a prompt that is
            too long and ends an answer that grows too long; "shift" drops the oldest tokens and continues.
        keep: tokens at the start of the prompt that "shift" never drops; 0 when None.
        penalty_alpha: contrastive search, for decoders only: among the top_k most likely tokens, take one that does
            not resemble those before it. The weight of the resemblance, above 0 and below 1; see `ContrastiveSearch`.

    None means the model's default, or off. If none of temperature, top_k, top_p and truncation is set, the model's
    generation config decides whether to sample. When sampling, a top_k that neither sets is 50, as in transformers.

    Raises:
        InputError: a value is out of range or of another type, or two conflict.
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
        check_is(self, Truncation, "truncation")
        check_is(self, Penalties, "penalties")
        check_is(self, Constraints, "constraints")
        check(self, at_least_one(), "max_new_tokens")
        check(self, not_negative(), "temperature")
        check(self, at_most(STRONGEST), "temperature")
        check(self, at_most(MOST_TOKENS), "max_new_tokens", "min_new_tokens", "top_k", "keep")
        check(self, whole_from_zero(), "top_k", "min_new_tokens", "logprobs", "keep")
        check(self, above_zero(1), "top_p")
        check(self, whole_from_zero(_SEEDS), "seed")
        check_list_of_texts("stop", self.stop)
        if not all(self.stop):
            raise InputError(f"{option('stop')} must be a text that is not empty")
        _check_stop_token(self.stop_token)
        check_order(self.order)
        check_one_of(self, get_args(Speculate), "speculate")
        check_one_of(self, get_args(OnOverflow), "on_overflow")
        if self.penalty_alpha is not None:
            above_zero().judge("penalty_alpha", self.penalty_alpha)
            if self.penalty_alpha >= 1:
                raise InputError(f"{option('penalty_alpha')} must be below 1, not {self.penalty_alpha}")
        check_conflicts({**vars(self), **vars(self.truncation), **greedy_situation(self)})


def greedy_situation(options: GenerationOptions, *, asked: bool = True) -> dict[str, object]:
    """The situations that options pass to `check_conflicts`; contrastive search has conflicts of its own.

    Args:
        options: with or without the model's defaults.
        asked: whether the temperature is the user's.
    """
    if options.temperature != 0 or options.penalty_alpha is not None:
        return {}
    return {GREEDY: True} if asked else {GREEDY: True, UNASKED_GREEDY: True}


def values_by_name(options: GenerationOptions) -> dict[str, object]:
    """All options by name, those of the groups among them."""
    groups = (options.truncation, options.penalties, options.constraints)
    own = {name: value for name, value in vars(options).items() if not any(value is group for group in groups)}
    return own | {name: value for group in groups for name, value in vars(group).items()}


def _check_stop_token(tokens: object) -> None:
    if isinstance(tokens, str | int) or not isinstance(tokens, Iterable):
        raise InputError(f"{option('stop_token')} must be a list of token ids and texts, not {tokens!r:.60}")
    for token in tokens:
        if not isinstance(token, str):
            whole_from_zero().judge("stop_token", token)
        elif not token:
            raise InputError(f"{option('stop_token')} must be a token id or a text that is not empty")
