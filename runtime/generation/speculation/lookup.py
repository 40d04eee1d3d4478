"""Prompt lookup: proposals copied from earlier in the sequence.

Prompt lookup decoding (https://github.com/apoorvumang/prompt-lookup-decoding): summaries, corrections and code repeat
parts of their prompt, so the tokens that followed the last few tokens before are likely to follow them again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triform.runtime.generation.steps import Ids

# The longest match is tried first: the longer it is, the likelier the next token is the same.
_LONGEST, _SHORTEST = 3, 2


def look_up(ids: Ids, count: int) -> Ids:
    """The tokens that followed the latest earlier occurrence of the last three tokens, or else of the last two.

    Args:
        ids: int64 (length,), the sequence so far.
        count: tokens to propose, at least one.

    Returns:
        int64 (count,), or (0,) where there is no earlier occurrence. Where fewer than `count` follow, they repeat.
    """
    for size in range(_LONGEST, _SHORTEST - 1, -1):
        end = _latest(ids, size)
        if end:
            return np.resize(ids[end:], count)
    return ids[:0]


def _latest(ids: Ids, size: int) -> int:
    """Where the latest earlier occurrence of the last `size` ids ends; 0 when there is none."""
    if len(ids) <= size:
        return 0
    # The end of each occurrence of the last id that is not the last itself and has enough ids before it.
    ends: NDArray[np.int64] = np.flatnonzero(ids[size - 1 : -1] == ids[-1]) + size
    for back in range(2, size + 1):
        ends = ends[ids[ends - back] == ids[-back]]
    return int(ends[-1]) if len(ends) else 0
