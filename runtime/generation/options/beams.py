"""What a user may ask of a search for several answers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.errors import InputError
from triform.runtime.generation.options.checks import flag
from triform.runtime.generation.options.generation import GenerationOptions

# Options that say how to draw; where a model's own defaults of them apply, a search asked for by number does not draw.
_DRAWING = ("temperature", "top_k", "top_p")
# What follows one answer as it grows, or rolls dice for it.
_ALONE = ("mirostat_tau", "xtc_threshold")


@dataclass(frozen=True)
class Beams:
    """How many answers to follow at once; None where the model's own default applies.

    Attributes:
        num_beams: answers followed at once; 1 means no beam search.
        length_penalty: above 0 favors long answers, below 0 short ones; see `BeamOptions`.
        early_stopping: true, false or "never"; see `BeamOptions`.
        num_return_sequences: answers to return, at most `num_beams` or `best_of`; 1 when None.
        num_beam_groups: groups of beams that keep out of each other's way; see `diverse_beam_search`.
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
                raise InputError(f"{flag(name)} must be a whole number of at least 1, not {value!r}")
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise InputError(f"--length-penalty must be a finite number, not {self.length_penalty}")
        if self.early_stopping not in (None, True, False, "never"):
            raise InputError(f"--early-stopping must be true, false or never, not {self.early_stopping!r}")
        if (self.num_beam_groups or 1) > 1 and self.diversity_penalty is None:
            raise InputError("--num-beam-groups needs --diversity-penalty, or all groups find the same; give both")
        if self.diversity_penalty is not None and (self.num_beam_groups or 1) == 1:
            raise InputError("--diversity-penalty needs --num-beam-groups; give both")
        for name in ("num_beams", "length_penalty", "early_stopping", "num_beam_groups"):
            if self.best_of is not None and getattr(self, name) not in (None, 1):
                raise InputError(f"--best-of draws answers instead of following beams; leave {flag(name)} out")

    def settled(self, defaults: GenerationDefaults) -> Search | None:
        """The search to make, the model's defaults filled in; None where there is a single beam.

        Raises:
            InputError: more answers are asked for than there are beams.
        """
        wanted = self.num_return_sequences or 1
        if self.best_of is not None:
            if wanted > self.best_of:
                raise InputError(f"--num-return-sequences {wanted} is more than --best-of {self.best_of}")
            return BestOf(self.best_of, wanted)
        count = self.num_beams or defaults.num_beams or 1
        if wanted > count:
            raise InputError(f"--num-return-sequences {wanted} is more than --num-beams {count}")
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
        """The options of a generation, where beams are asked for and nothing is said of drawing: without drawing.

        A model's own temperature is meant for one answer; beams draw their candidates only when told to.
        """
        said = [name for name in _DRAWING if getattr(options, name) is not None]
        said += [name for name, value in vars(options.truncation).items() if value is not None]
        if said or (self.num_beams or 1) == 1:
            return options
        return dataclasses.replace(options, temperature=0.0)


def check_search(search: Search | None, options: GenerationOptions) -> None:
    """Refuse options that contradict a search.

    Args:
        search: from `Beams.settled`.
        options: with the model's defaults filled in.

    Raises:
        InputError: they do.
    """
    if isinstance(search, BestOf):
        if not options.temperature:
            raise InputError("--best-of draws answers, and without --temperature above 0 they would all be the same")
    elif search is not None:
        for name in _ALONE:
            if getattr(options.truncation, name) is not None:
                raise InputError(f"{flag(name)} follows one answer, and --num-beams several; leave one out")
        if isinstance(search, DiverseBeams) and options.temperature:
            raise InputError("--num-beam-groups do not draw; leave --temperature out")


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
            raise InputError(f"--num-beams must be at least 1, not {self.num_beams}")
        if not np.isfinite(self.length_penalty):
            raise InputError(f"--length-penalty must be a finite number, not {self.length_penalty}")
        if self.early_stopping not in (True, False, "never"):
            raise InputError(f"--early-stopping must be true, false or never, not {self.early_stopping!r}")
        if not 1 <= self.num_return_sequences <= self.num_beams:
            raise InputError(
                f"--num-return-sequences must be between 1 and --num-beams ({self.num_beams}), "
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
