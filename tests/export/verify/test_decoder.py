"""What the comparison with PyTorch notices, on graphs that are tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from triform.export.verify.decoder import quantized_decoder_parity, verify_decoder
from triform.runtime.errors import ExportError

IDS = list(range(24))


class Table:
    """A decoder whose logits after a token depend on its place alone."""

    def __init__(self, logits):
        self.logits = np.asarray(logits, np.float32)

    def start(self, batch, capacity):
        self.lengths = np.zeros(batch, int)

    def feed(self, input_ids, positions, sizes=None):
        places = self.lengths[:, None] + positions
        self.lengths = self.lengths + (input_ids.shape[1] if sizes is None else sizes)
        return self.logits[places], {}


def table():
    return np.random.default_rng(0).normal(size=(len(IDS), 5)).astype(np.float32)


def test_equal_logits_pass():
    assert verify_decoder(Table(table()), table(), IDS).prefill == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, 9.0])
@pytest.mark.parametrize("place", [0, 12, 23])
def test_logits_that_differ_in_one_place_fail(value, place):
    logits = table()
    logits[place, 2] = value
    with pytest.raises(ExportError, match="does not compute what PyTorch does"):
        verify_decoder(Table(logits), table(), IDS)


def test_divergence_is_from_the_original_to_the_quantized():
    """KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308; the reverse is 0.1438."""
    original = np.log(np.tile([0.75, 0.25], (4, 1))).astype(np.float32)
    quantized = np.log(np.tile([0.5, 0.5], (4, 1))).astype(np.float32)
    found = quantized_decoder_parity(lambda piece: original[: len(piece)], Table(quantized), [0, 1, 0, 0], 4)
    assert found.mean_kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    # Three tokens are predicted: 1, 0 and 0.
    assert found.perplexity_original == pytest.approx((0.25 * 0.75 * 0.75) ** (-1 / 3), rel=1e-5)
    assert found.perplexity_quantized == pytest.approx(2.0, rel=1e-5)
