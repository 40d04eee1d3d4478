"""Blocks taken apart stand for what gguf's own decoder says."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Format
from gguf import dequantize

from tests.checkpoints.gguf_blocks import random_tensor
from triform.export.checkpoint.gguf.blocks import can_decode, decode

DECODED = [kind for kind in Format if can_decode(kind)]


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_numbers_are_those_of_gguf(kind):
    tensor = random_tensor(kind, 3, 768)
    found = decode(tensor)
    assert np.array_equal(found.values, dequantize(tensor.data, kind))
    assert found.numbers.shape == (3, 768 // found.block_size, found.block_size)
    assert found.numbers.max() < 2**found.bits


def test_formats_that_people_have_are_decoded():
    names = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS"
    assert {kind.name for kind in DECODED} == set(names.split())
