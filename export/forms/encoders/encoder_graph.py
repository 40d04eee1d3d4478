"""Writes a fused encoder graph for each target: verified against PyTorch, quantized or made 16 bits wide, and compared.

The same for texts, images and audio.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.export.forms.encoders.checks import EncoderChecks
from triform.export.forms.encoders.gpu_graph import compare_with_float, lower_for_gpu
from triform.export.graph.fused import encoder_notes
from triform.export.options import MIXED, ExportOptions
from triform.export.quantize.encoder import (
    FloatGraph,
    linear_inputs_of,
    quantize_encoder,
    write_calibration_graph,
    write_float_graph,
)
from triform.export.quantize.kernels_and_tables import narrow_kernels_and_tables
from triform.export.quantize.mixed.encoder import CalibrationInputs, lower_encoder_to_goal
from triform.export.report import Clock
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.verify.encoder import (
    quantized_encoder_parity,
    task_output,
    verify_encoder,
    worst_parity,
)
from triform.export.write import describe_graph, write_graph
from triform.runtime.bundle.export_record import EncoderParity, QuantizedEncoderParity
from triform.runtime.bundle.manifest import BundleTarget, GpuDtype, GpuGraphs, GraphInfo, Manifest, Quantization
from triform.runtime.errors import refuse_unused


@dataclass(frozen=True)
class WrittenGraph:
    """A graph on disk.

    Attributes:
        info: for the manifest.
        parity: how close it is to PyTorch.
    """

    info: GraphInfo
    parity: EncoderParity


@dataclass(frozen=True)
class BundleGraphs:
    """The graphs of a bundle, as its manifest has them.

    Attributes:
        target: of `graphs`.
        graphs: by name.
        parity: of `graphs`, the worst of each number.
        gpu: the graphs for GPUs, in a bundle for both.
    """

    target: BundleTarget
    graphs: dict[str, GraphInfo]
    parity: EncoderParity
    gpu: GpuGraphs | None = None

    def into(self, manifest: Manifest) -> Manifest:
        """Say in a manifest with these graphs what they are made for."""
        return dataclasses.replace(manifest, target=self.target, gpu=self.gpu)


def bundle_graphs(written: Mapping[str, Mapping[BundleTarget, WrittenGraph]], dtype: GpuDtype) -> BundleGraphs:
    """Put the graphs of a bundle together.

    Args:
        written: by name and target; all have the same targets.
        dtype: what a GPU computes with.
    """
    targets = list(next(iter(written.values())))
    infos = {target: {name: graphs[target].info for name, graphs in written.items()} for target in targets}
    parities = {target: worst_parity([graphs[target].parity for graphs in written.values()]) for target in targets}
    first = targets[0]
    gpu = None if len(targets) == 1 else GpuGraphs(dtype, infos["gpu"], parities["gpu"])
    return BundleGraphs(first, infos[first], parities[first], gpu)


@dataclass(frozen=True)
class FloatStage:
    """A graph in float32, before it is written for each target.

    Attributes:
        original: on disk: to keep, or to calibrate with.
        for_gpu: a copy that is not lowered; None where there is no bundle for GPUs.
    """

    original: FloatGraph
    for_gpu: ir.Model | None


def float_stage(graph: ir.Model, path: Path, scratch: Path, options: ExportOptions) -> FloatStage:
    """Write a graph in float32; arguments as `write_encoder_graphs`."""
    for_gpu = graph.clone() if options.for_gpu else None
    threads = usable_cores()
    if options.quantize != "none":
        return FloatStage(write_calibration_graph(graph, scratch / path.name, threads), for_gpu)
    kept = path if options.for_cpu else scratch / path.name
    return FloatStage(write_float_graph(graph, kept, threads), for_gpu)


def write_encoder_graphs(
    graph: ir.Model,
    stage: FloatStage,
    names: Sequence[str],
    checks: EncoderChecks,
    path: Path,
    scratch: Path,
    options: ExportOptions,
    clock: Clock,
) -> dict[BundleTarget, WrittenGraph]:
    """Verify a graph in float32, and write it for each target of the options, the CPU first.

    Args:
        graph: fused; changed in place.
        stage: from `float_stage`.
        names: of its outputs.
        checks: inputs to run it on.
        path: of the file to write. Beside it, the graph for GPUs gets the prefix "gpu-" if there is one for the CPU.
        scratch: a folder for graphs that are not kept.
        options: targets, and how to store weights.
        clock: times the steps.

    Raises:
        ExportError: the float32 graph does not match PyTorch, or 16 bits change its results too much.
    """
    original, gpu_graph, notes = stage.original, stage.for_gpu, encoder_notes(graph)
    with clock.step("verify"):
        parity = worst_parity([verify_encoder(original.runner, names, batch) for batch in checks.reference])
    written: dict[BundleTarget, WrittenGraph] = {}
    if options.for_cpu:
        quantization = Quantization("none")
        if options.quantize != "none":
            quantization, quantized = _quantize(graph, names, checks, original, path, scratch, options, clock)
            parity = dataclasses.replace(parity, quantized=quantized)
        written["cpu"] = WrittenGraph(describe_graph(graph, path, quantization, notes), parity)
    if gpu_graph is not None:
        gpu_path = path.with_name(f"gpu-{path.name}") if options.for_cpu else path
        with clock.step("make for GPUs"):
            twin = lower_for_gpu(gpu_graph, options.gpu_dtype, gpu_path, scratch)
            gpu_parity = compare_with_float(twin, original.runner, names, checks)
        info = describe_graph(gpu_graph, gpu_path, Quantization("none"), {**notes, **twin.notes})
        written["gpu"] = WrittenGraph(info, gpu_parity)
    return written


def _quantize(
    graph: ir.Model,
    names: Sequence[str],
    checks: EncoderChecks,
    original: FloatGraph,
    path: Path,
    scratch: Path,
    options: ExportOptions,
    clock: Clock,
) -> tuple[Quantization, QuantizedEncoderParity]:
    """Quantize a graph in place, write it, and compare it with the float32 graph."""
    name = task_output(names)

    def compare(quantized: ir.Model, file: Path = scratch / f"trial-{path.name}") -> QuantizedEncoderParity:
        write_graph(quantized, file)
        return quantized_encoder_parity(
            lambda arrays: original.runner.run(arrays, [name])[name], EncoderRunner(file, usable_cores()), name,
            checks.evaluation, checks.reference[0].pad, checks.problem_type, checks.blank,
        )  # fmt: skip

    with clock.step("quantize"):
        narrow_kernels_and_tables(graph)
        if checks.subject is not None and options.quantize == MIXED:
            inputs = CalibrationInputs(linear_inputs_of(original, checks.calibration), checks.rows_worth)
            with tempfile.TemporaryDirectory(dir=scratch) as moments:
                quantization = lower_encoder_to_goal(
                    graph, inputs, checks.subject, compare, options, path.parent, Path(moments), clock
                )
        else:
            quantization = quantize_encoder(
                graph, options, original, checks.calibration, checks.rows_worth, clock.counted
            )
            _check_level(graph, options)
    with clock.step("compare"):
        parity = compare(graph, path)
    return quantization, parity


def _check_level(graph: ir.Model, options: ExportOptions) -> None:
    """Refuse an accuracy level that no product of the graph has."""
    given = options.accuracy_level != ExportOptions.accuracy_level
    has_level = any("accuracy_level" in node.attributes for node in graph.graph)
    refuse_unused("is for products of blocks, and this graph has none", accuracy_level=given and not has_level)
