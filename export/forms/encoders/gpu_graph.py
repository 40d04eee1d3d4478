"""Makes an encoder's graph for GPUs, and compares what it computes there with PyTorch and the float32 graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.export.forms.encoders.checks import EncoderChecks
from triform.export.gpu.half import to_half
from triform.export.gpu.skip_norms import fuse_skip_layer_norms
from triform.export.gpu.twin import allowed_error, rounded_twin
from triform.export.graph.fusion_biases import fuse_biases
from triform.export.quantize.blocks import lower_to_float
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.verify.encoder import encoder_parity, quantized_encoder_parity, task_output, worst_parity
from triform.export.write import operators_of, write_graph
from triform.runtime.bundle.export_record import EncoderParity
from triform.runtime.bundle.manifest import GpuDtype, GraphInfo
from triform.runtime.errors import ExportError, option


@dataclass(frozen=True)
class GpuTwin:
    """A graph for GPUs as the CPU runs it, see `gpu/twin.py`.

    Attributes:
        dtype: what it computes with.
        runners: run the twin, and the graph itself where the CPU can.
        allowed: the largest error that its roundings explain, as a share of the largest output.
    """

    dtype: GpuDtype
    runners: Sequence[EncoderRunner]
    allowed: float

    @property
    def notes(self) -> dict[str, str]:
        """For the graph's entry in the manifest."""
        return {"dtype": self.dtype, "compared": f"in float32 on a CPU, with each result rounded to {self.dtype}"}


def lower_for_gpu(graph: ir.Model, dtype: GpuDtype, path: Path, scratch: Path) -> GpuTwin:
    """Lower a fused graph to operators that CUDA has in 16 bits, and write it.

    Args:
        graph: changed in place.
        dtype: of its floats.
        path: the file to write.
        scratch: a folder for the twin.
    """
    lower_to_float(graph)
    fuse_biases(graph)
    fuse_skip_layer_norms(graph)
    to_half(graph, dtype)
    write_graph(graph, path)
    twin, twin_path = rounded_twin(graph, dtype), scratch / f"twin-{path.name}"
    write_graph(twin, twin_path)
    runners = [EncoderRunner(twin_path, usable_cores())]
    if dtype == "float16":
        # The CPU has no kernels for bfloat16.
        runners.append(EncoderRunner(path, usable_cores()))
    return GpuTwin(dtype, runners, allowed_error(sum(operators_of(graph).values()), dtype))


def compare_with_float(
    twin: GpuTwin, original: EncoderRunner, names: Sequence[str], checks: EncoderChecks
) -> EncoderParity:
    """Compare a graph for GPUs with PyTorch, and its task's output with the float32 graph's.

    Args:
        twin: of the graph.
        original: the float32 graph.
        names: of the outputs.
        checks: inputs to run it on.

    Raises:
        ExportError: an output is no number, or differs by more than rounding explains.
    """
    measured = [
        _within(
            worst_parity([encoder_parity(runner, names, batch) for batch in checks.reference]), twin.allowed, twin.dtype
        )
        for runner in twin.runners
    ]
    name = task_output(names)
    quantized = quantized_encoder_parity(
        lambda arrays: original.run(arrays, [name])[name], twin.runners[0], name,
        checks.evaluation, checks.reference[0].pad, checks.problem_type, checks.blank,
    )  # fmt: skip
    if not all(math.isfinite(value) for value in dataclasses.astuple(quantized) if value is not None):
        raise _overflow(twin.dtype)
    return dataclasses.replace(measured[0], quantized=quantized)


def check_gpu_parity(parity: EncoderParity, graph: GraphInfo) -> EncoderParity:
    """Check the differences between a graph of 16 bits in a bundle and PyTorch; returns them with what is allowed.

    Raises:
        ExportError: see `compare_with_float`.
    """
    dtype: GpuDtype = "bfloat16" if graph.notes.get("dtype") == "bfloat16" else "float16"
    return _within(parity, allowed_error(sum(graph.operators.values()), dtype), dtype)


def _within(parity: EncoderParity, share: float, dtype: GpuDtype) -> EncoderParity:
    allowed, worst = share * parity.scale, max(parity.batch, parity.single)
    if not (math.isfinite(parity.batch) and math.isfinite(parity.single)):
        raise _overflow(dtype)
    if worst > allowed:
        raise ExportError(
            f"the graph for GPUs does not match PyTorch: outputs differ by {worst:.2e} in {dtype}, allowed are "
            f"{allowed:.2e}; export with {option('target')} cpu, and please report this model"
        )
    return dataclasses.replace(parity, tolerance=allowed)


def _overflow(dtype: GpuDtype) -> ExportError:
    if dtype == "bfloat16":
        return ExportError("the graph for GPUs gives infinity or NaN in bfloat16; please report this model")
    return ExportError(
        f"this model computes numbers beyond float16's 65,504 (its outputs become infinity or NaN); export with "
        f"{option('dtype')} bfloat16"
    )
