"""Proposals of tokens that the form of the answer forces: the name of a JSON field, the rest of a choice."""

from __future__ import annotations

import numpy as np

from triform.runtime.generation.processors.form import Constraint
from triform.runtime.generation.speculation.loop import Proposer
from triform.runtime.generation.speculation.pace import SIZES
from triform.runtime.generation.steps import Ids


class ForcedTokens:
    """Proposes the tokens that must follow; where there are too few, those of another proposer.

    They are proposed, not simply appended: a text can often be tokenized in several ways, and the model decides which
    tokens it would have chosen one by one.

    Args:
        constraint: the form of the answer; not shared with the sampler.
        otherwise: the proposer to use where too few tokens are forced.
    """

    def __init__(self, constraint: Constraint, otherwise: Proposer | None) -> None:
        self._constraint, self._otherwise = constraint, otherwise

    def __call__(self, ids: Ids, count: int) -> Ids:
        """Forced tokens, in number the largest of `SIZES` that fits, at most `count`. Arguments as `look_up`."""
        forced = self._constraint.forced(ids)
        size = max((size for size in SIZES if size <= min(count, len(forced))), default=0)
        if size:
            return np.array(forced[:size], np.int64)
        return self._otherwise(ids, count) if self._otherwise is not None else ids[:0]
