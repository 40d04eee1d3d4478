"""The comparison of a graph with PyTorch, on logits that a table gives."""

from __future__ import annotations

import numpy as np
import pytest

from triform.export.verify.decoder import quantized_decoder_parity, verify_decoder
from triform.runtime.errors import ExportError

VOCAB = 5
IDS = [1, 3, 0, 4, 2, 2, 1, 0, 3, 4, 1, 1, 2, 0, 4, 3, 2, 1]
LOGITS = np.random.default_rng(0).normal(size=(len(IDS), VOCAB)).astype(np.float32)


class Table:
    """A `DecoderRunner` that looks its logits up by position."""

    def __init__(self, logits):
        self.logits = logits
        self.extra_outputs = []

    def start(self, batch, capacity):
        self.lengths = np.zeros(batch, np.int32)

    def feed(self, input_ids, positions, lengths=None):
        places = self.lengths[:, None] + positions
        self.lengths = self.lengths + np.asarray(input_ids.shape[1] if lengths is None else lengths, np.int32)
        return self.logits[places], {}


def test_equal_logits_pass():
    parity = verify_decoder(Table(LOGITS), LOGITS, IDS)
    assert (parity.prefill, parity.chunked, parity.step, parity.ragged) == (0, 0, 0, 0)


@pytest.mark.parametrize("place", [0, 4, len(IDS) - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 9.0])
def test_one_number_that_differs_is_refused(place, value):
    logits = LOGITS.copy()
    logits[place, 2] = value
    with pytest.raises(ExportError, match="does not compute what PyTorch does"):
        verify_decoder(Table(logits), LOGITS, IDS)


def test_the_divergence_is_of_the_quantized_from_the_original():
    """KL(original || quantized), by its definition: the sum of p (log p - log q)."""
    other = LOGITS * 2.5
    found = quantized_decoder_parity(lambda ids: LOGITS[: len(ids)], Table(other), IDS, len(IDS))

    def probabilities(logits):
        table = np.exp(logits.astype(np.float64))
        return table / table.sum(-1, keepdims=True)

    p, q = probabilities(LOGITS), probabilities(other)
    assert found.mean_kl == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-5)
    assert found.mean_kl != pytest.approx((q * np.log(q / p)).sum(-1).mean(), rel=1e-2)
    assert found.top1_agreement == 1
    targets = np.array(IDS[1:])[:, None]
    for measured, table in ((found.perplexity_original, p), (found.perplexity_quantized, q)):
        losses = -np.log(np.take_along_axis(table[:-1], targets, 1))
        assert measured == pytest.approx(np.exp(losses.mean()), rel=1e-5)
