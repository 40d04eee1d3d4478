"""Meets what a user wants of a decoder's size, or refuses it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
from transformers import PreTrainedModel

from triform.export.options import MIXED, ExportOptions
from triform.export.quantize.blocks import Store
from triform.export.quantize.mixed.allocation import Point, within_size
from triform.export.quantize.mixed.lowering import lower_mixed
from triform.export.report import Clock
from triform.runtime.bundle.manifest import Quantization
from triform.runtime.errors import InputError, option

# Bytes that a node takes in the graph's file, that the alignment of a matrix' three constants takes in the data file,
# and that the manifest takes: generous, because a target is a limit.
_NODE, _ALIGNMENT, _MANIFEST = 800, 3 * 4096, 60_000
# Lines of the table.
_ROWS = 8


def lower_to_target(
    model: ir.Model,
    network: PreTrainedModel,
    ids: list[int],
    window: int,
    options: ExportOptions,
    folder: Path,
    clock: Clock,
    store: Store,
) -> Quantization:
    """Quantize a decoder so that it meets the target of the options.

    Args:
        model: changed in place.
        network: what the graph was traced from.
        ids: text to calibrate on.
        window: tokens that are read at once.
        options: with a target.
        folder: of the bundle, with all files but the graph and the manifest.
        clock: gets the frontier as notes.
        store: for the blocks.

    Raises:
        InputError: the target is smaller than what is possible.
        UnsupportedError: see `lower_mixed`.
    """
    files = sum(file.stat().st_size for file in folder.iterdir())
    nodes = len(list(model.graph))

    def choose(points: list[Point], weights: int, others: int) -> Point:
        matrices = len(points[0].choices)
        rest = files + others + nodes * _NODE + matrices * _ALIGNMENT + _MANIFEST
        clock.notes.extend(_table(points, weights, rest))
        return _chosen(points, weights, rest, options)

    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        lowered = lower_mixed(model, network, ids, window, options.accuracy_level, Path(scratch), choose, store)
    point = lowered.point
    weights = lowered.weights
    clock.notes.append(f"chosen: {8 * point.size / weights:.2f} bits per weight, {_kinds(lowered.formats)}")
    return Quantization(
        MIXED,
        accuracy_level=options.accuracy_level,
        matrices=len(point.choices),
        formats=lowered.formats,
        products={name: str(choice) for name, choice in point.choices.items()},
    )


def _chosen(points: Sequence[Point], weights: int, rest: int, options: ExportOptions) -> Point:
    if options.target_size is not None:
        point = within_size(points, options.target_size - rest)
        if point is None:
            smallest = -(-(points[0].size + rest) // 10**5) / 10
            raise InputError(f"{option('target_size')} is too small: this model takes at least {smallest:.1f}MB")
        return point
    bits = options.target_bits or 0.0
    point = within_size(points, int(bits * weights / 8))
    if point is None:
        smallest = -(-800 * points[0].size // weights) / 100
        raise InputError(f"{option('target_bits')} is too small: this model takes at least {smallest:.2f}")
    return point


def _kinds(formats: dict[str, int]) -> str:
    return ", ".join(f"{count} in {name}" for name, count in formats.items())


def _table(points: Sequence[Point], weights: int, rest: int) -> list[str]:
    """Points at even distances in bytes: the size of the bundle, the bits per weight and the estimated divergence."""
    first, last = points[0].size, points[-1].size
    sizes = {first + (last - first) * step // (_ROWS - 1) for step in range(_ROWS)}
    shown = {point.size: point for size in sorted(sizes) if (point := within_size(points, size)) is not None}
    return [
        f"frontier: {(point.size + rest) / 1e6:.1f} MB, {8 * point.size / weights:.2f} bits per weight, estimated KL "
        f"{point.damage:.4f} before error feedback"
        for point in shown.values()
    ]
