"""Options for beam search and best-of sampling, and the search that they select."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.checks import STEEPEST, STRONGEST, at_most, between, check, not_negative
from triform.runtime.generation.options.conflicts import BEAM_GROUPS, BEAMS, BEST_OF, NO_BEAMS, check_conflicts
from triform.runtime.generation.options.generation import GenerationOptions

# Sampling options. The model's defaults for them are meant for a single answer, so beam search does not use them.
_SAMPLING = ("temperature", "top_k", "top_p")


@dataclass(frozen=True)
class Beams:
    """Options for beam search or best-of sampling; None means the model's default.

    Attributes:
        num_beams: number of beams; 1 means no beam search.
        length_penalty: above 0 favors long answers, below 0 short ones; see `BeamOptions`.
        early_stopping: true, false or "never"; see `BeamOptions`.
        num_return_sequences: answers to return, at most `num_beams` or `best_of`; 1 when None.
        num_beam_groups: number of groups for diverse beam search; divides `num_beams`; see `diverse_beam_search`.
        diversity_penalty: subtracted, in nats, from a token that another group has chosen; needs groups.
        best_of: number of answers to sample instead of using beams; the most likely ones are returned.

    Raises:
        InputError: a value is out of range, or two conflict.
    """

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_return_sequences: int | None = None
    num_beam_groups: int | None = None
    diversity_penalty: float | None = None
    best_of: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_beams", "num_return_sequences", "num_beam_groups", "best_of"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{option(name)} must be a whole number of at least 1, not {value!r}")
        check(self, between(-STEEPEST, STEEPEST), "length_penalty")
        check(self, not_negative(), "diversity_penalty")
        check(self, at_most(STRONGEST), "diversity_penalty")
        if self.early_stopping not in (None, True, False, "never"):
            raise InputError(f"{option('early_stopping')} must be true, false or never, not {self.early_stopping!r}")
        check_conflicts(self._values(self.num_beams))

    def settled(self, defaults: GenerationDefaults) -> Search | None:
        """The search to run, with the model's defaults filled in; None where a single answer is generated.

        Raises:
            InputError: `num_return_sequences` is more than the number of beams or samples.
        """
        count = self.num_beams or defaults.num_beams or 1
        check_conflicts(self._values(count))
        returned = self.num_return_sequences or 1
        if self.best_of is not None:
            return BestOf(self.best_of, returned)
        if count == 1:
            return None
        stopping = self.early_stopping if self.early_stopping is not None else defaults.early_stopping
        penalty = self.length_penalty if self.length_penalty is not None else defaults.length_penalty
        beams = BeamOptions(
            count,
            1.0 if penalty is None else penalty,
            "never" if stopping == "never" else bool(stopping),
            returned,
            bool(defaults.renormalize_logits),
        )
        if self.diversity_penalty is None:
            return beams
        return DiverseBeams(beams, self.num_beam_groups or 1, self.diversity_penalty)

    def drawing(self, options: GenerationOptions) -> GenerationOptions:
        """The options of the search: temperature 0 with several beams, unless the user set a sampling option.

        The model's default temperature is meant for a single answer; beams sample only when the user asks for it.
        """
        sampling = [name for name in _SAMPLING if getattr(options, name) is not None]
        sampling += [name for name, value in vars(options.truncation).items() if value is not None]
        if sampling or (self.num_beams or 1) == 1:
            return options
        return dataclasses.replace(options, temperature=0.0)

    def _values(self, num_beams: int | None) -> dict[str, Any]:
        # One beam is no beam search, and the model's default number of beams gives way: best_of conflicts with neither.
        ignored = self.best_of is not None and (self.num_beams or 1) == 1
        without = {NO_BEAMS: True} if num_beams == 1 and self.best_of is None else {}
        return {**vars(self), "num_beams": None if ignored else num_beams, **without}


@dataclass(frozen=True)
class BeamOptions:
    """Settings of a beam search.

    Attributes:
        num_beams: number of beams, at least 1.
        length_penalty: the score of a hypothesis is the sum of its tokens' log-probabilities, divided by its number of
            generated tokens raised to this power. Above 0 favors long ones, below 0 short ones.
        early_stopping: when to stop once there are `num_beams` hypotheses. True: at once. False: when the best beam, if
            it ended here, would score no better than the worst hypothesis. "never": as False, but with a positive
            `length_penalty` the best beam is scored with the greatest length it can reach.
        num_return_sequences: hypotheses to return, at most `num_beams`.
        renormalize: whether the tokens that processors leave have a total probability of 1 again, as a model's own
            `renormalize_logits` asks for: then what is banned makes no answer less likely.

    Raises:
        InputError: a value is out of range.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = 1
    renormalize: bool = False

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise InputError(f"{option('num_beams')} must be at least 1, not {self.num_beams}")
        check(self, between(-STEEPEST, STEEPEST), "length_penalty")
        if self.early_stopping not in (True, False, "never"):
            raise InputError(f"{option('early_stopping')} must be true, false or never, not {self.early_stopping!r}")
        if not 1 <= self.num_return_sequences <= self.num_beams:
            raise InputError(
                f"{option('num_return_sequences')} must be between 1 and {option('num_beams')} ({self.num_beams}), "
                f"not {self.num_return_sequences}"
            )


@dataclass(frozen=True)
class DiverseBeams:
    """Settings of a diverse beam search; see `diverse_beam_search`."""

    beams: BeamOptions
    num_beam_groups: int
    diversity_penalty: float


@dataclass(frozen=True)
class BestOf:
    """How many answers to sample, and how many of them to return; see `best_of`."""

    count: int
    num_return_sequences: int


Search = BeamOptions | DiverseBeams | BestOf


def rows_of(search: Search | None) -> int:
    """The most rows of the batch that one prompt needs."""
    if search is None:
        return 1
    if isinstance(search, BestOf):
        return search.count
    return (search.beams if isinstance(search, DiverseBeams) else search).num_beams


def situation_of(search: Search | None) -> dict[str, object]:
    """The situations that a search passes to `check_conflicts`."""
    if search is None:
        return {}
    if isinstance(search, BestOf):
        return {BEST_OF: True}
    return {BEAMS: True, BEAM_GROUPS: True} if isinstance(search, DiverseBeams) else {BEAMS: True}
