"""Proposals for what comes next, copied from what was there before.

Prompt lookup decoding (https://github.com/apoorvumang/prompt-lookup-decoding): summaries, corrections and code repeat
runs of their prompt, so the tokens that followed the last few tokens earlier are likely to follow them again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triform.runtime.generation.steps import Ids

# Longest match looked for first: the more agrees, the likelier the next does.
_LONGEST, _SHORTEST = 3, 2


def look_up(ids: Ids, count: int) -> Ids:
    """What followed the latest earlier occurrence of the last three tokens, or two.

    Args:
        ids: int64 (length,), the sequence so far.
        count: tokens to propose, at least one.

    Returns:
        int64 (count,), or (0,) where the last tokens are new. What runs into the end of the sequence repeats itself.
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
    # The last id of each occurrence, which is not the last of all and has enough before it.
    ends: NDArray[np.int64] = np.flatnonzero(ids[size - 1 : -1] == ids[-1]) + size
    for back in range(2, size + 1):
        ends = ends[ids[ends - back] == ids[-back]]
    return int(ends[-1]) if len(ends) else 0
