"""A fused encoder graph to files: verify against PyTorch, quantize, compare, the same for texts and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.options import ExportOptions
from triform.export.quantize.encoder import quantize_encoder, write_float, write_twin
from triform.export.report import Clock
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.samples.batches import Sample
from triform.export.verify.encoder import compare_quantized, compare_with_reference, judged_output, together
from triform.export.write import write_graph
from triform.runtime.bundle.export_record import EncoderParity
from triform.runtime.bundle.manifest import Quantization


@dataclass(frozen=True)
class Trial:
    """What a graph is tried with.

    Attributes:
        parity: inputs to compare with PyTorch.
        expected: what PyTorch makes of them as one padded batch.
        calibration: inputs to calibrate on.
        compared: inputs to compare the quantized graph with.
        pad: token id that pads.
        problem_type: of a classification, see `compare_quantized`.
        others: further batches to compare with PyTorch, as `parity` and `expected`.
    """

    parity: Sequence[Sample]
    expected: Sequence[torch.Tensor]
    calibration: Sequence[Sample]
    compared: Sequence[Sample]
    pad: int
    problem_type: str | None = None
    others: Sequence[tuple[Sequence[Sample], Sequence[torch.Tensor]]] = ()


def finish_graph(
    graph: ir.Model, names: Sequence[str], trial: Trial, path: Path, scratch: Path, options: ExportOptions, clock: Clock
) -> tuple[Quantization, EncoderParity]:
    """Write a graph as `options` ask for it, and measure it.

    Args:
        graph: fused, not lowered yet; changed in place.
        names: of its outputs.
        trial: what to try it with.
        path: of the file to write.
        scratch: a folder for a graph that is not kept.
        options: say how weights are stored.
        clock: times the steps.

    Raises:
        ExportError: the float graph does not match PyTorch.
    """
    quantized = options.quantize != "none"
    with clock.step("verify"):
        threads = usable_cores()
        twin = write_twin(graph, scratch / path.name, threads) if quantized else write_float(graph, path, threads)
        batches = [(trial.parity, trial.expected), *trial.others]
        parity = together(
            [compare_with_reference(twin.runner, names, expected, one, trial.pad) for one, expected in batches]
        )
    if not quantized:
        return Quantization("none"), parity
    with clock.step("quantize"):
        quantization = quantize_encoder(graph, options, twin, trial.calibration)
        write_graph(graph, path)
    with clock.step("compare"):
        small, judged = EncoderRunner(path, threads), judged_output(names)
        measured = compare_quantized(
            lambda one: twin.runner.run(one, [judged])[judged], small, judged, trial.compared, trial.pad,
            trial.problem_type,
        )  # fmt: skip
    return quantization, dataclasses.replace(parity, quantized=measured)
