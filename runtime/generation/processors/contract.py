"""The contract of logits processors, and what they share.

A processor is called with a row's token ids so far and the logits after them, and returns the changed logits. The
processors are in `penalties`, `bans` and `truncation`; their order is in `options/step_order.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from triform.runtime.generation.steps import Ids, Logits, Positions

# Called with the ids of one row so far, prompt and generated, int64 (length,), and its logits, float32 (vocab_size,).
# Returns logits of the same shape. Never writes to its input; returns the input itself when nothing changes. Takes what
# is constant for a generation, such as the prompt's length, when it is made. One with state serves a single row.
Processor = Callable[[Ids, Logits], Logits]
NEVER = np.float32(-np.inf)


class Filter:
    """A processor that removes tokens depending on their logits alone.

    The positions of the tokens do not matter, nor does the presence of removed ones, so a sampler may pass it only the
    tokens that earlier filters kept.

    Attributes:
        keep: called with logits, float32 (count,), of which the largest is finite; returns the positions to keep, at
            least one, or None for all of them.
        most: how many of the likeliest tokens it keeps, and those that are as likely as the last; None if that depends
            on the logits.
    """

    def __init__(self, keep: Callable[[Logits], Positions | None], most: int | None = None) -> None:
        self.keep, self.most = keep, most

    def __call__(self, ids: Ids, logits: Logits) -> Logits:
        """Logits with minus infinity for the removed tokens."""
        if not np.isfinite(logits.max()):
            return logits
        kept = self.keep(logits)
        if kept is None:
            return logits
        result = np.full_like(logits, NEVER)
        result[kept] = logits[kept]
        return result


class Temperature:
    """Divide the logits by a temperature. transformers: TemperatureLogitsWarper.

    Args:
        temperature: above 0; below 1 sharpens the distribution, above 1 flattens it.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = np.float32(max(temperature, float(np.finfo(np.float32).tiny)))
        # Below this, ordinary logits may overflow.
        self._tiny = temperature < 1e-30

    def __call__(self, ids: Ids, logits: Logits) -> Logits:
        """The scaled logits; the largest is first subtracted where the temperature is tiny, to avoid infinity."""
        result: Logits
        if not self._tiny:
            result = logits / self._temperature
            return result
        with np.errstate(over="ignore"):
            result = (logits - logits.max()) / self._temperature
        return result


def ban(logits: Logits, tokens: Any) -> Logits:
    """A copy of `logits` with minus infinity for `tokens`, an array or list of ids."""
    result = logits.copy()
    result[tokens] = NEVER
    return result


def only(logits: Logits, tokens: Any) -> Logits:
    """Logits that allow only `tokens`: 0 for those, as in transformers, and minus infinity for all others."""
    result = np.full_like(logits, NEVER)
    result[tokens] = 0
    return result
