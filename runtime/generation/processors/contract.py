"""What stands between a model's logits and the choice of a token: the contract, and what all steps share.

A processor is called with one row, its token ids so far and the logits after them, and returns the logits to go on
with. The steps themselves are in `penalties`, `bans` and `truncation`, in the order of `options/step_order.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from triform.runtime.generation.steps import Ids, Logits, Positions

# Called with the ids of one row so far, prompt and generated, int64 (length,), and its logits, float32 (vocab_size,).
# Returns logits of the same shape. Never writes to its input; returns the input itself when nothing changes. What is
# constant for a generation, such as the prompt's length, it takes when made; one with a state serves one row.
Processor = Callable[[Ids, Logits], Logits]
NEVER = np.float32(-np.inf)


class Filter:
    """A processor that removes tokens, and decides by how likely each is and by nothing else.

    It does not matter then where in the array a token is, nor whether tokens that are out already are in the array at
    all, so that a sampler may hand it the tokens that earlier filters left.

    Attributes:
        keep: called with logits, float32 (count,), of which the largest is finite; gives the positions to keep, at
            least one, or None for all of them.
    """

    def __init__(self, keep: Callable[[Logits], Positions | None]) -> None:
        self.keep = keep

    def __call__(self, ids: Ids, logits: Logits) -> Logits:
        """Logits with minus infinity for what is removed."""
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
        """The logits divided; relative to the largest where the temperature is tiny, so that no infinity is first."""
        result: Logits
        if not self._tiny:
            result = logits / self._temperature
            return result
        with np.errstate(over="ignore"):
            result = (logits - logits.max()) / self._temperature
        return result


def ban(logits: Logits, tokens: Any) -> Logits:
    """A copy of `logits` in which `tokens`, an array or list of ids, have minus infinity."""
    result = logits.copy()
    result[tokens] = NEVER
    return result


def only(logits: Logits, tokens: Any) -> Logits:
    """Logits that leave no choice but `tokens`, which get 0 as in transformers."""
    result = np.full_like(logits, NEVER)
    result[tokens] = 0
    return result
