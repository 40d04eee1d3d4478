"""Writes a fused encoder graph: verified against PyTorch, quantized and compared; the same for texts and images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.export.options import ExportOptions
from triform.export.quantize.encoder import quantize_encoder, write_calibration_graph, write_float_graph
from triform.export.quantize.int8_search import ROWS_WORTH
from triform.export.report import Clock
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.samples.batches import Sample
from triform.export.verify.encoder import (
    ReferenceBatch,
    quantized_encoder_parity,
    task_output,
    verify_encoder,
    worst_parity,
)
from triform.export.write import write_graph
from triform.runtime.bundle.export_record import EncoderParity
from triform.runtime.bundle.manifest import Quantization


@dataclass(frozen=True)
class EncoderChecks:
    """Inputs that a graph is verified, calibrated and compared with.

    Attributes:
        reference: what PyTorch gives for some batches.
        calibration: samples for choosing how to quantize.
        evaluation: samples for comparing the quantized graph with the float graph.
        problem_type: of a classification, see `quantized_encoder_parity`.
        rows_worth: see `choose_quantization`.
    """

    reference: Sequence[ReferenceBatch]
    calibration: Sequence[Sample]
    evaluation: Sequence[Sample]
    problem_type: str | None = None
    rows_worth: float = ROWS_WORTH


def write_encoder_graph(
    graph: ir.Model,
    names: Sequence[str],
    checks: EncoderChecks,
    path: Path,
    scratch: Path,
    options: ExportOptions,
    clock: Clock,
) -> tuple[Quantization, EncoderParity]:
    """Verify a graph, quantize it if `options` ask for it, and write it.

    Args:
        graph: fused, not lowered yet; changed in place.
        names: of its outputs.
        checks: inputs to run it on.
        path: of the file to write.
        scratch: a folder for a graph that is not kept.
        options: how to store weights.
        clock: times the steps.

    Raises:
        ExportError: the float graph does not match PyTorch.
    """
    quantized = options.quantize != "none"
    threads = usable_cores()
    with clock.step("verify"):
        if quantized:
            original = write_calibration_graph(graph, scratch / path.name, threads)
        else:
            original = write_float_graph(graph, path, threads)
        parity = worst_parity([verify_encoder(original.runner, names, batch) for batch in checks.reference])
    if not quantized:
        return Quantization("none"), parity
    with clock.step("quantize"):
        quantization = quantize_encoder(graph, options, original, checks.calibration, checks.rows_worth)
        write_graph(graph, path)
    with clock.step("compare"):
        name = task_output(names)
        quantized_parity = quantized_encoder_parity(
            lambda arrays: original.runner.run(arrays, [name])[name], EncoderRunner(path, threads), name,
            checks.evaluation, checks.reference[0].pad, checks.problem_type,
        )  # fmt: skip
    return quantization, dataclasses.replace(parity, quantized=quantized_parity)
