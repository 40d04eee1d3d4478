"""The largest of the differences that a comparison measured."""

from __future__ import annotations

import numpy as np

from triform.runtime.bundle.export_record import EncoderParity, Parity


def worst_difference(parity: Parity | EncoderParity) -> float:
    """The largest difference of all ways of feeding; NaN if any is NaN, which Python's max can lose."""
    names = ("prefill", "chunked", "step", "ragged") if isinstance(parity, Parity) else ("batch", "single")
    return float(np.max([getattr(parity, name) for name in names]))
