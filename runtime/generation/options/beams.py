"""Searches for several answers to a prompt: what a user may ask for, and what is then done."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.conflicts import BEAM_GROUPS, BEAMS, BEST_OF, check_conflicts
from triform.runtime.generation.options.generation import GenerationOptions

# Options that say how to draw. The model's own defaults of them are meant for one answer, so a search that is asked for
# does not apply them.
_DRAWING = ("temperature", "top_k", "top_p")


@dataclass(frozen=True)
class Beams:
    """How many answers to follow at once; None where the model's own default applies.

    Attributes:
        num_beams: answers followed at once; 1 means no beam search.
        length_penalty: above 0 favors long answers, below 0 short ones; see `BeamOptions`.
        early_stopping: true, false or "never"; see `BeamOptions`.
        num_return_sequences: answers to return, at most `num_beams` or `best_of`; 1 when None.
        num_beam_groups: groups of beams that are kept apart; divides `num_beams`; see `diverse_beam_search`.
        diversity_penalty: what it costs a group to choose what another has chosen, in nats; needs groups.
        best_of: instead of beams, answers to draw, of which those that the model finds likeliest are returned.

    Raises:
        InputError: a value is out of range, or two contradict each other.
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
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise InputError(f"{option('length_penalty')} must be a finite number, not {self.length_penalty}")
        if self.early_stopping not in (None, True, False, "never"):
            raise InputError(f"{option('early_stopping')} must be true, false or never, not {self.early_stopping!r}")
        check_conflicts(self._values(self.num_beams))

    def settled(self, defaults: GenerationDefaults) -> Search | None:
        """The search to make, the model's defaults filled in; None where a single answer is followed.

        Raises:
            InputError: more answers are asked for than there are beams or draws.
        """
        count = self.num_beams or defaults.num_beams or 1
        check_conflicts(self._values(count))
        wanted = self.num_return_sequences or 1
        if self.best_of is not None:
            return BestOf(self.best_of, wanted)
        if count == 1:
            return None
        stopping = self.early_stopping if self.early_stopping is not None else defaults.early_stopping
        penalty = self.length_penalty if self.length_penalty is not None else defaults.length_penalty
        beams = BeamOptions(
            count,
            1.0 if penalty is None else penalty,
            "never" if stopping == "never" else bool(stopping),
            wanted,
        )
        if self.diversity_penalty is None:
            return beams
        return DiverseBeams(beams, self.num_beam_groups or 1, self.diversity_penalty)

    def drawing(self, options: GenerationOptions) -> GenerationOptions:
        """The options of the search: where nothing is said of drawing, beams do not draw.

        The model's own temperature is meant for one answer; beams draw their candidates only when told to.
        """
        said = [name for name in _DRAWING if getattr(options, name) is not None]
        said += [name for name, value in vars(options.truncation).items() if value is not None]
        if said or (self.num_beams or 1) == 1:
            return options
        return dataclasses.replace(options, temperature=0.0)

    def _values(self, num_beams: int | None) -> dict[str, Any]:
        # One beam is no search, and the model's own number of beams is not asked for: neither contradicts draws.
        alone = self.best_of is not None and (self.num_beams or 1) == 1
        return {**vars(self), "num_beams": None if alone else num_beams}


@dataclass(frozen=True)
class BeamOptions:
    """How to search.

    Attributes:
        num_beams: sequences followed at once, at least 1.
        length_penalty: a hypothesis scores the sum of its tokens' log-probabilities, divided by its length in
            generated tokens to this power. Above 0 favors long ones, below 0 short ones.
        early_stopping: when to stop with `num_beams` hypotheses found. True: at once. False: when the best beam, ended
            here, would score no better than the worst of them. "never": as False, but with a positive
            `length_penalty` the beam is given the greatest length it can reach, the most its score can profit from it.
        num_return_sequences: hypotheses to return, at most `num_beams`.

    Raises:
        InputError: a value is out of range.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = 1

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise InputError(f"{option('num_beams')} must be at least 1, not {self.num_beams}")
        if not np.isfinite(self.length_penalty):
            raise InputError(f"{option('length_penalty')} must be a finite number, not {self.length_penalty}")
        if self.early_stopping not in (True, False, "never"):
            raise InputError(f"{option('early_stopping')} must be true, false or never, not {self.early_stopping!r}")
        if not 1 <= self.num_return_sequences <= self.num_beams:
            raise InputError(
                f"{option('num_return_sequences')} must be between 1 and {option('num_beams')} ({self.num_beams}), "
                f"not {self.num_return_sequences}"
            )


@dataclass(frozen=True)
class DiverseBeams:
    """Beams in groups; see `diverse_beam_search`."""

    beams: BeamOptions
    num_beam_groups: int
    diversity_penalty: float


@dataclass(frozen=True)
class BestOf:
    """So many answers drawn, and so many of them returned; see `best_of`."""

    count: int
    num_return_sequences: int


Search = BeamOptions | DiverseBeams | BestOf


def rows_of(search: Search | None) -> int:
    """Rows of the batch that one prompt needs at most."""
    if search is None:
        return 1
    if isinstance(search, BestOf):
        return search.count
    return (search.beams if isinstance(search, DiverseBeams) else search).num_beams


def situation_of(search: Search | None) -> dict[str, object]:
    """What a search is to `check_conflicts`."""
    if search is None:
        return {}
    if isinstance(search, BestOf):
        return {BEST_OF: True}
    return {BEAMS: True, BEAM_GROUPS: True} if isinstance(search, DiverseBeams) else {BEAMS: True}
