"""What is allowed to a graph of 16-bit floats."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from triform.export.verify.half import check_half, in_half
from triform.runtime.bundle.export_record import Parity
from triform.runtime.errors import ExportError

WAYS = ("prefill", "chunked", "step", "ragged")
# The largest logit is 10, of which a twentieth is allowed.
PARITY = in_half(Parity(0.1, 0.2, 0.3, 0.4, 10.0, 5e-3), 0.05)


def test_a_share_of_the_largest_logit_is_allowed():
    assert PARITY.tolerance == pytest.approx(0.5)
    check_half(PARITY, "float16", quantized=False)


@pytest.mark.parametrize("way", WAYS)
def test_a_larger_difference_is_refused_unless_weights_are_quantized(way):
    worse = replace(PARITY, **{way: 0.6})
    with pytest.raises(ExportError, match=r"logits differ by 0\.6 in float16 \(allowed 0\.5\)"):
        check_half(worse, "float16", quantized=False)
    check_half(worse, "float16", quantized=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("quantized", [False, True])
def test_what_is_no_number_is_always_refused(way, value, quantized):
    with pytest.raises(ExportError, match="export with `dtype` bfloat16"):
        check_half(replace(PARITY, **{way: value}), "float16", quantized=quantized)
    with pytest.raises(ExportError, match="that bfloat16 cannot hold; please report"):
        check_half(replace(PARITY, **{way: value}), "bfloat16", quantized=quantized)
