"""A pair of graphs that differs from PyTorch is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.export.verify.test_decoder import IDS, Table, table
from triform.export.verify import encoder_decoder
from triform.export.verify.encoder_decoder import ReferenceAnswers, verify_encoder_decoder
from triform.runtime.errors import ExportError

LOGITS = table()


class Pair:
    """An `EncoderDecoderRunner` whose decoder's logits are a table."""

    def __init__(self, logits):
        self.logits = logits

    def read(self, arrays):
        return Table(self.logits)


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(encoder_decoder, "padded", lambda samples, pad: {})
    return ReferenceAnswers([None, None], [LOGITS, LOGITS], None, [], IDS, 0)


def test_equal_logits_pass(reference):
    assert verify_encoder_decoder(Pair(LOGITS), reference).prefill == 0


@pytest.mark.parametrize("value", [np.nan, 9.0])
def test_a_difference_for_one_source_is_refused(reference, value):
    other = LOGITS.copy()
    other[7, 1] = value
    for logits in ([LOGITS, other], [other, LOGITS]):
        with pytest.raises(ExportError, match="does not compute what PyTorch does"):
            verify_encoder_decoder(Pair(LOGITS), dataclasses.replace(reference, logits=logits))


@pytest.mark.parametrize("value", [np.nan, 9.0])
@pytest.mark.parametrize("row", [0, 1])
def test_a_difference_in_a_batch_is_refused(reference, value, row):
    together = np.stack([LOGITS, LOGITS])
    assert verify_encoder_decoder(Pair(LOGITS), dataclasses.replace(reference, batch_logits=together)).ragged == 0
    together[row, 7, 1] = value
    with pytest.raises(ExportError, match="does not compute what PyTorch does: ragged"):
        verify_encoder_decoder(Pair(LOGITS), dataclasses.replace(reference, batch_logits=together))
