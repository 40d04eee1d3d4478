"""What a user may ask of a beam search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from triform.runtime.beam_search import BeamOptions
from triform.runtime.errors import InputError
from triform.runtime.manifest import GenerationDefaults


@dataclass(frozen=True)
class Beams:
    """How many answers to follow at once; None where the model's own default applies.

    Attributes:
        num_beams: answers followed at once; 1 means no beam search.
        length_penalty: above 0 favors long answers, below 0 short ones; see `BeamOptions`.
        early_stopping: true, false or "never"; see `BeamOptions`.
        num_return_sequences: answers to return, at most `num_beams`; 1 when None.

    Raises:
        InputError: a value is out of range.
    """

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_return_sequences: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_beams", "num_return_sequences"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"--{name.replace('_', '-')} must be a whole number of at least 1, not {value!r}")
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise InputError(f"--length-penalty must be a finite number, not {self.length_penalty}")
        if self.early_stopping not in (None, True, False, "never"):
            raise InputError(f"--early-stopping must be true, false or never, not {self.early_stopping!r}")

    def settled(self, defaults: GenerationDefaults) -> BeamOptions | None:
        """The search to make, the model's defaults filled in; None where there is a single beam.

        Raises:
            InputError: more answers are asked for than there are beams.
        """
        count = self.num_beams or defaults.num_beams or 1
        wanted = self.num_return_sequences or 1
        if wanted > count:
            raise InputError(f"--num-return-sequences {wanted} is more than --num-beams {count}")
        if count == 1:
            return None
        stopping = self.early_stopping if self.early_stopping is not None else defaults.early_stopping
        penalty = self.length_penalty if self.length_penalty is not None else defaults.length_penalty
        return BeamOptions(
            count,
            1.0 if penalty is None else penalty,
            "never" if stopping == "never" else bool(stopping),
            wanted,
        )
