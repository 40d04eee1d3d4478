"""Blocks taken apart stand for what gguf's own decoder says."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, dequantize
from gguf import GGMLQuantizationType as Format

from triform.export.checkpoint.gguf.blocks import can_decode, decode
from triform.export.checkpoint.gguf.container import Tensor

DECODED = [kind for kind in Format if can_decode(kind)]


def random_tensor(kind: Format, rows: int, columns: int) -> Tensor:
    """Blocks of random bytes, whose half-precision numbers are made small and finite."""
    length, size = GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(int(kind)).integers(0, 256, (rows, columns // length, size)).astype(np.uint8)
    halves = {Format.Q4_1: (0, 2), Format.Q5_1: (0, 2), Format.Q4_K: (0, 2), Format.Q5_K: (0, 2), Format.Q2_K: (80, 82)}
    for start in halves.get(kind, {Format.Q3_K: (108,), Format.Q6_K: (208,)}.get(kind, (0,))):
        # An exponent of at most 15 is a number below 2.
        data[..., start + 1] &= 0b10111111
    return Tensor("weight", kind, (rows, columns), data.reshape(rows, -1))


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
