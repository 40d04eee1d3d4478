"""What a user may ask of one generation."""

from __future__ import annotations

from dataclasses import dataclass, field

from triform.runtime.errors import InputError
from triform.runtime.option_checks import above_zero, at_least_one, check, flag, not_negative, whole_from_zero
from triform.runtime.processors_order import check_order
from triform.runtime.sampling_options import Constraints, Penalties, Truncation

__all__ = ["Constraints", "GenerationOptions", "Penalties", "Truncation"]

# A seed is one half of a Philox key.
_SEEDS = 2**64


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
        logprobs: how many of the likeliest tokens to report beside each generated one; 0 reports that alone, None none.
        truncation: further ways to cut off unlikely tokens.
        penalties: against repetition, and for an end.
        constraints: tokens to ban, to force, or to shift.
        order: steps to apply in another order, by name; see `processors_order`.

    When temperature, top_k, top_p and truncation say nothing, the model's own defaults of them apply. All other values
    that are None are the model's own, or off.

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
    logprobs: int | None = None
    truncation: Truncation = field(default_factory=Truncation)
    penalties: Penalties = field(default_factory=Penalties)
    constraints: Constraints = field(default_factory=Constraints)
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, at_least_one(), "max_new_tokens")
        check(self, not_negative(), "temperature")
        check(self, whole_from_zero(), "top_k", "min_new_tokens", "logprobs")
        check(self, above_zero(1), "top_p")
        check(self, whole_from_zero(_SEEDS), "seed")
        if isinstance(self.stop, str) or any(not isinstance(text, str) or not text for text in self.stop):
            raise InputError("--stop must be a text that is not empty")
        check_order(self.order)
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        most, least = self.max_new_tokens, self.min_new_tokens
        if most is not None and least is not None and least > most:
            raise InputError(f"--min-new-tokens {least} is more than --max-new-tokens {most}")
        cuts = self.truncation
        for name in ("xtc_threshold", "mirostat_tau"):
            if self.temperature == 0 and getattr(cuts, name) is not None:
                raise InputError(f"--temperature 0 draws nothing, so {flag(name)} contradicts it; leave one out")
        if cuts.mirostat_tau is not None:
            others = {"top_k": self.top_k or None, "top_p": self.top_p}
            others |= {name: value for name, value in vars(cuts).items() if not name.startswith("mirostat")}
            for name, value in others.items():
                if value is not None:
                    raise InputError(f"--mirostat-tau replaces every other truncation, so leave out {flag(name)}")
