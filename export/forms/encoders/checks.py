"""What the graphs of an encoder are run on, to verify, calibrate and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from triform.export.quantize.columns.search import ROWS_WORTH
from triform.export.quantize.mixed.moments import Differentiable
from triform.export.samples.batches import Sample
from triform.export.verify.encoder import ReferenceBatch


@dataclass(frozen=True)
class EncoderChecks:
    """Inputs that a graph is verified, calibrated and compared with.

    Attributes:
        reference: what PyTorch gives for some batches.
        calibration: samples for choosing how to quantize.
        evaluation: samples for comparing the quantized graph with the float graph.
        problem_type: of a classification, see `quantized_encoder_parity`.
        blank: of a model for CTC, see there.
        rows_worth: see `choose_quantization`.
        subject: what the graph is traced from, for goals.
    """

    reference: Sequence[ReferenceBatch]
    calibration: Sequence[Sample]
    evaluation: Sequence[Sample]
    problem_type: str | None = None
    blank: int | None = None
    rows_worth: float = ROWS_WORTH
    subject: Differentiable | None = None
