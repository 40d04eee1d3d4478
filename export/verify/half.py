"""What the logits of a graph for GPUs may differ by: it rounds to 11 or 8 bits where PyTorch rounds to 24."""

from __future__ import annotations

import dataclasses
import math

from triform.runtime.bundle.export_record import Parity
from triform.runtime.errors import ExportError, option

# The largest share of a number by which rounding to nearest changes it.
_PRECISION = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
# Roundings that add up before and behind the layers, beside one for each layer. SmolLM2-135M reaches a fifth of what is
# allowed.
_ROUNDINGS = 8


def in_half(parity: Parity, dtype: str, layers: int) -> Parity:
    """The same differences with the tolerance for float16 or bfloat16.

    Args:
        parity: between a graph for GPUs and PyTorch.
        dtype: float16 or bfloat16.
        layers: of the decoder.
    """
    return dataclasses.replace(parity, tolerance=_PRECISION[dtype] * (_ROUNDINGS + layers) * parity.scale)


def check_half(parity: Parity, dtype: str, *, quantized: bool) -> None:
    """Refuse a graph that does not compute what PyTorch does.

    Args:
        parity: from `in_half`.
        dtype: float16 or bfloat16.
        quantized: whether weights have 4 bits, whose differences are measured only.

    Raises:
        ExportError: a difference is not a number, or beyond the tolerance.
    """
    differences = (parity.prefill, parity.chunked, parity.step, parity.ragged)
    if not all(map(math.isfinite, differences)):
        raise ExportError(
            f"the model computes numbers that {dtype} cannot hold; export with {option('dtype')} bfloat16"
            if dtype == "float16"
            else f"the model computes numbers that {dtype} cannot hold; please report this model"
        )
    if not quantized and max(differences) > parity.tolerance:
        raise ExportError(
            f"the graph for GPUs does not compute what PyTorch does: logits differ by {max(differences):.2g} in "
            f"{dtype} (allowed {parity.tolerance:.2g}); please report this model"
        )
