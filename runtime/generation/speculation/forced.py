"""Proposals that the form of an answer leaves no choice about: the name of a JSON field, the rest of a choice."""

from __future__ import annotations

import numpy as np

from triform.runtime.generation.processors.form import Constraint
from triform.runtime.generation.speculation.loop import Proposer
from triform.runtime.generation.speculation.pace import SIZES
from triform.runtime.generation.steps import Ids


class ForcedTokens:
    """Proposes the tokens that must follow, and where there are few of them what another proposer says.

    They are proposed and not simply taken: a text can often be cut into tokens in several ways, and which the model
    would have chosen one by one is for the model to say.

    Args:
        constraint: the form of the answer; used for nothing else.
        otherwise: asked where not enough is forced.
    """

    def __init__(self, constraint: Constraint, otherwise: Proposer | None) -> None:
        self._constraint, self._otherwise = constraint, otherwise

    def __call__(self, ids: Ids, count: int) -> Ids:
        """As many tokens as are usually tried in one run, at most `count`, or none. Arguments as `look_up`."""
        forced = self._constraint.forced(ids)
        size = max((one for one in SIZES if one <= min(count, len(forced))), default=0)
        if size:
            return np.array(forced[:size], np.int64)
        return self._otherwise(ids, count) if self._otherwise is not None else ids[:0]
