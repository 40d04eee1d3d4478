"""Decides how many tokens to propose, by the cost of a run and by how often proposals were accepted."""

from __future__ import annotations

import math
from collections import Counter

# Numbers of tokens that may be proposed. Few sizes, so that their buffers can be kept.
SIZES = (2, 4, 8, 12)
# Assumed cost of each further token in a run, in plain steps, until it is measured: int4 weights on two CPUs.
_SLOPE = 0.25
_LEAST = 1 / 64
# Runs of a size before its time counts (the first allocates its buffers), and plain steps before the first proposal.
_MEASURED, _STEPS = 4, 6
# A gain below this is within the error of the estimate.
_WORTH = 1.05
# Plain steps to wait after a run that did not pay off, if no size should; doubled with each further one, up to a limit.
_PATIENCE, _LONGEST = 4, 256


class Pace:
    """Learns, while one row is generated, how many tokens to propose.

    Assumes that each proposed token lengthens a run by the same fraction of a plain step (the slope), and that each is
    accepted with the same probability if those before it were; both are measured as the row grows. The slope is rounded
    to a power of four, so that small differences in timing do not change what is proposed.

    Attributes:
        proposed: number of tokens proposed so far.
        accepted: number of these that were accepted.
    """

    def __init__(self) -> None:
        self.proposed = self.accepted = 0
        # By number of proposed tokens, 0 for a plain step: the number of runs and the shortest time of one, which other
        # load on the machine affects least.
        self._runs: Counter[int] = Counter()
        self._times: dict[int, float] = {}
        # Accepted tokens, and runs with a rejected one; older ones count less. Starts as if two of three were accepted.
        self._agreed, self._missed = 2.0, 1.0
        # A few plain steps first, for comparison.
        self._wait = _STEPS
        self._patience = _PATIENCE

    def wanted(self, most: int) -> int:
        """The number of tokens to propose; 0 for a plain step.

        Args:
            most: tokens that there is room for; may be negative.
        """
        if self._wait > 0:
            return 0
        best = max((size for size in SIZES if size <= most), key=self._gain, default=0)
        # Where no size should pay off, the smallest is still tried now and then, since that may have changed.
        return best if best == 0 or self._gain(best) >= _WORTH else SIZES[0]

    def stepped(self, seconds: float) -> None:
        """Record the time of a plain step, in seconds."""
        self._timed(0, seconds)
        self._wait = max(self._wait - 1, 0)

    def tried(self, tried: int, agreed: int, seconds: float) -> None:
        """Record a run: the number of tokens proposed and accepted, and its time in seconds."""
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
        """The expected number of tokens from a run with `size` proposals, relative to plain steps in the same time."""
        share = self._agreed / (self._agreed + self._missed)
        return sum(share**index for index in range(size + 1)) / self._cost(size)

    def _cost(self, size: int) -> float:
        """The time of a run with `size` proposals, in plain steps."""
        known = [tokens for tokens in SIZES if self._runs[tokens] >= _MEASURED]
        slope = _SLOPE
        if known:
            measured = sum((self._times[tokens] / self._times[0] - 1) / tokens for tokens in known) / len(known)
            slope = 4.0 ** round(math.log(max(measured, _LEAST), 4))
        return 1 + slope * size
