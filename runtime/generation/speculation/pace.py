"""How many tokens to try at once: as many as pay, by what a run costs and how often the guesses were right."""

from __future__ import annotations

import math
from collections import Counter
from statistics import mean

# Tokens that a run may try beside the one that is certain. Few sizes, so that their buffers can be kept.
SIZES = (2, 4, 8, 12)
# What another token in a run costs, in steps, until it is measured: four-bit weights on two CPUs.
_SLOPE = 0.25
_LEAST = 1 / 64
# Runs of a size before its time counts, the first of which makes its buffers; plain steps before anything is tried.
_MEASURED, _STEPS = 4, 6
# A gain below this is within what the model of it can tell.
_WORTH = 1.05
# Tokens to wait after the first run that did not pay, when none should; doubled with each further one.
_PATIENCE, _LONGEST = 4, 256


class Pace:
    """Learns, while one row is generated, how many tokens to try.

    The time of a run is taken to grow by `slope` steps for every token tried, and each token to agree with the same
    probability, given that those before it did; both are measured as the row grows. The slope is rounded to a power of
    four, so that of two runs on one machine the clock lets both try the same.

    Attributes:
        proposed: tokens that were tried so far.
        accepted: of these, those that agreed.
    """

    def __init__(self) -> None:
        self.proposed = self.accepted = 0
        # By tokens tried, none for a plain step: runs, and the shortest time of one, which what else the machine does
        # disturbs least.
        self._runs: Counter[int] = Counter()
        self._times: dict[int, float] = {}
        # Tokens that agreed, and runs in which one did not; older ones fade. As if two of three had agreed.
        self._agreed, self._missed = 2.0, 1.0
        # A few plain steps first, to compare with.
        self._wait = _STEPS
        self._patience = _PATIENCE

    def wanted(self, most: int) -> int:
        """How many tokens to try; 0 for a plain step.

        Args:
            most: tokens there is room for, perhaps less than none.
        """
        if self._wait > 0:
            return 0
        best = max((size for size in SIZES if size <= most), key=self._gain, default=0)
        # Where nothing should pay, a little is tried all the same, now and then, for things may have changed.
        return best if best == 0 or self._gain(best) >= _WORTH else SIZES[0]

    def stepped(self, seconds: float) -> None:
        """Note a plain step and its time."""
        self._timed(0, seconds)
        self._wait = max(self._wait - 1, 0)

    def tried(self, tried: int, agreed: int, seconds: float) -> None:
        """Note a run: tokens tried, how many agreed, and its time."""
        self._timed(tried, seconds)
        self.proposed += tried
        self.accepted += agreed
        self._agreed = 0.9 * self._agreed + agreed
        self._missed = 0.9 * self._missed + (agreed < tried)
        if 1 + agreed > self._cost(tried):
            self._patience = max(self._patience // 2, _PATIENCE)
        elif max(map(self._gain, SIZES)) < _WORTH:
            self._wait = self._patience
            self._patience = min(2 * self._patience, _LONGEST)

    def _timed(self, tried: int, seconds: float) -> None:
        self._runs[tried] += 1
        if self._runs[tried] > 1:
            self._times[tried] = min(seconds, self._times.get(tried, seconds))

    def _gain(self, size: int) -> float:
        """Tokens to expect of a run that tries so many, over those of plain steps in the same time."""
        share = self._agreed / (self._agreed + self._missed)
        return sum(share**place for place in range(size + 1)) / self._cost(size)

    def _cost(self, size: int) -> float:
        """What a run that tries so many takes, in steps."""
        known = [one for one in SIZES if self._runs[one] >= _MEASURED]
        slope = _SLOPE
        if known:
            measured = mean((self._times[one] / self._times[0] - 1) / one for one in known)
            slope = 4.0 ** round(math.log(max(measured, _LEAST), 4))
        return 1 + slope * size
