"""Perplexity of a text of any length under a model of limited context, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.step import DecoderStep


def perplexity(step: DecoderStep, ids: Sequence[int], window: int) -> float:
    """Exponential of the mean negative log-likelihood of each token given those before it.

    Args:
        step: the model; its cache is used and left dirty.
        ids: at least two tokens.
        window: tokens the model sees at once, at least two. A longer text is read in windows that overlap by half;
            each token counts once, in the first window that holds it.
    """
    losses, counted = [], 1
    while counted < len(ids):
        end = min(len(ids), window if counted == 1 else counted + window // 2)
        start = max(0, end - window)
        step.cache.reset()
        losses.append(_losses(step, ids[start:end])[counted - start - 1 :])
        counted = end
    return float(np.exp(np.concatenate(losses).mean()))


def _losses(step: DecoderStep, ids: Sequence[int]) -> NDArray[np.float64]:
    """Negative log-likelihood of ids[1:], float64 (len(ids) - 1,)."""
    found: list[NDArray[np.float64]] = []
    targets = np.asarray(ids[1:])
    done = 0
    for logits in step.logits_in_chunks(ids):
        # The last position of all predicts what the text does not say.
        chunk = targets[done : done + len(logits)]
        table = logits[: len(chunk)]
        table -= table.max(-1, keepdims=True)
        wanted = table[np.arange(len(chunk)), chunk]
        found.append(np.log(np.exp(table, out=table).sum(-1, dtype=np.float64)) - wanted)
        done += len(logits)
    return np.concatenate(found)
