"""Perplexity of a decoder."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from triform.runtime.decoder.model import Decoder
from triform.runtime.errors import InputError
from triform.runtime.evaluation.measurement import Measurement, Metric, Rows

# Tokens that are drawn together: the losses of neighbors are not independent of each other.
_BLOCK = 128
# Columns of the statistics.
_LOSS, _TOKENS, _BYTES = range(3)


def evaluate_text(model: Decoder, text: str, window: int | None = None) -> Measurement:
    """Measure how well a decoder predicts a text. An item is a block of consecutive tokens.

    Args:
        model: the decoder.
        text: of any length.
        window: tokens that the model reads at once, see `Decoder.score`.

    Returns:
        perplexity, and bits per byte of the whole text in UTF-8, which models with different tokenizers can be
        compared by.

    Raises:
        InputError: the text has fewer than two tokens, or the window does not fit the model.
    """
    score = model.score(text, window=window)
    losses = -np.array(score.logprobs[1:], np.float64)
    if not len(losses):
        raise InputError("perplexity needs a text of at least two tokens")
    starts = np.arange(0, len(losses), _BLOCK)
    rows = np.zeros((len(starts), 3))
    rows[:, _LOSS] = np.add.reduceat(losses, starts)
    rows[:, _TOKENS] = np.diff([*starts, len(losses)])
    size = len(text.encode("utf-8"))
    # Each token counts as the mean number of bytes, since a token need not be whole characters.
    rows[:, _BYTES] = rows[:, _TOKENS] * (size / len(losses))
    used = window or model.manifest.max_length
    details = {"tokens": len(score.token_ids), "bytes": size, "window": used, "stride": used // 2}
    return Measurement(
        rows, _block_scores(rows), _METRICS, f"blocks of {_BLOCK} tokens", details, (score.token_ids, used)
    )


def _block_scores(rows: Rows) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = -rows[:, _LOSS] / rows[:, _TOKENS]
    return scores


def _perplexity(rows: Rows) -> float:
    return float(np.exp(rows[:, _LOSS].sum() / rows[:, _TOKENS].sum()))


def _bits_per_byte(rows: Rows) -> float:
    return float(rows[:, _LOSS].sum() / math.log(2) / rows[:, _BYTES].sum())


_METRICS = (Metric("perplexity", _perplexity), Metric("bits per byte", _bits_per_byte))
