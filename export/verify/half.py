"""Whether the logits of a graph for GPUs, which rounds to 11 or 8 bits, are close enough to PyTorch's."""

from __future__ import annotations

import dataclasses
import math

from triform.runtime.bundle.export_record import Parity
from triform.runtime.errors import ExportError, option


def in_half(parity: Parity, share: float) -> Parity:
    """The same differences, of which this share of the largest logit is allowed; see `gpu/twin.py`."""
    return dataclasses.replace(parity, tolerance=share * parity.scale)


def check_half(parity: Parity, dtype: str, *, quantized: bool) -> None:
    """Refuse a graph that does not compute what PyTorch does.

    Args:
        parity: between the graph and PyTorch, with the tolerance that its roundings explain.
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
