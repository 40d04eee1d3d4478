"""The likeliest tokens after a text, where a device chooses them and all logits stay there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Likeliest:
    """Some tokens and their logits; every other token is less likely than these.

    Attributes:
        best: the likeliest token; -1 where the logits are not numbers.
        tokens: int64 (count,), in ascending order; empty where only the likeliest was wanted.
        logits: float32 (count,), of these tokens.
    """

    best: int
    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]


# What a model says about the next token: all logits, float32 (vocab_size,), or the likeliest tokens.
Scores = NDArray[np.float32] | Likeliest
# The same for several rows, or after several tokens of one: float32 (rows, vocab_size), or a list.
Table = NDArray[np.float32] | Sequence[Likeliest]
# float32 (batch, num_logits, vocab_size), or lists of lists.
Tables = NDArray[np.float32] | Sequence[Sequence[Likeliest]]
NOTHING: tuple[NDArray[np.int64], NDArray[np.float32]] = (np.zeros(0, np.int64), np.zeros(0, np.float32))


def likeliest_of(best: NDArray[Any]) -> list[Likeliest]:
    """The likeliest token of each row.

    Args:
        best: int64 (rows,).
    """
    return [Likeliest(token, *NOTHING) for token in best.tolist()]


def all_logits(scores: Scores) -> NDArray[np.float32]:
    """The logits of all tokens.

    Raises:
        ValueError: the model was asked for the likeliest tokens only.
    """
    if isinstance(scores, Likeliest):
        raise ValueError("all logits are needed, and only the likeliest tokens are there")
    return scores


def all_rows(table: Table) -> NDArray[np.float32]:
    """The logits of all tokens, for several rows. Errors as `all_logits`."""
    if isinstance(table, np.ndarray):
        return table
    raise ValueError("all logits are needed, and only the likeliest tokens are there")
