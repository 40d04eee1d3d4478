"""Chooses the point of a frontier that meets what a user wants, or refuses it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from triform.export.options import MIXED, ExportOptions
from triform.export.quantize.mixed.allocation import Choice, Point, frontier, within_size
from triform.export.quantize.mixed.search import smallest_within
from triform.export.report import Clock, FrontierPoint
from triform.runtime.bundle.manifest import Quantization
from triform.runtime.errors import ExportError, InputError, UnsupportedError, option

# Bytes that a node takes in the graph's file, that the alignment of a matrix' three constants takes in the data file,
# and that the manifest takes: generous, because a target is a limit.
_NODE, _ALIGNMENT, _MANIFEST = 800, 3 * 4096, 60_000
# Lines of the table, and points of a drawing.
_ROWS, _DRAWN = 8, 40
# A smaller bundle is no longer looked for when it would save less than this share.
_WORTHWHILE = 0.005


@dataclass(frozen=True)
class Frontier:
    """The ways to store a whole model.

    Attributes:
        points: from the smallest to the best, by size.
        weights: in all matrices.
        rest: bytes of everything else in the bundle.
        damage: what the damage of a point estimates, in words.
        timed: weights of the matrices whose products' times are known.
    """

    points: list[Point]
    weights: int
    rest: int
    damage: str
    timed: int = 0

    def bits(self, point: Point) -> float:
        """Per weight, with scales and zero points."""
        return 8 * point.size / self.weights

    def size(self, point: Point) -> str:
        """The size of the bundle, and the bits per weight, in words."""
        return f"{(point.size + self.rest) / 1e6:.1f} MB, {self.bits(point):.2f} bits per weight"

    def time(self, point: Point) -> float | None:
        """Of the products whose times are known, in what they take in 4 bits with blocks of 64; None if none are."""
        return point.time / self.timed if self.timed else None

    def pace(self, point: Point) -> str:
        """The same in words that follow others; none if it is not known."""
        time = self.time(point)
        return "" if time is None else f", products take {time:.2f} times as long as in int4"

    def record(self, point: Point, loss: float | None = None, *, chosen: bool = False) -> FrontierPoint:
        """The point as a report has it."""
        return FrontierPoint(point.size + self.rest, self.bits(point), point.damage, loss, chosen, self.time(point))

    def at_even_distances(self, count: int) -> list[Point]:
        """So many points or fewer, of sizes at about even distances."""
        first, last = self.points[0].size, self.points[-1].size
        sizes = [first + (last - first) * step // (count - 1) for step in range(count)]
        return list({point.size: point for size in sizes if (point := within_size(self.points, size))}.values())


def frontier_of(
    graphs: Sequence[ir.Model],
    sizes: Mapping[str, int],
    choices: Mapping[str, Sequence[Choice]],
    folder: Path,
    damage: str,
) -> Frontier:
    """The frontier of a model's matrices.

    Args:
        graphs: that they are in; one may be in several.
        sizes: by name, how many weights are in each constant that is stored by choice.
        choices: by weight name, the ways to store each.
        folder: see `size_of_rest`.
        damage: see `Frontier`.

    Raises:
        ExportError: what a choice damages is no number, so that none is better than another.
    """
    for name, options in choices.items():
        if not all(math.isfinite(choice.damage) for choice in options):
            raise ExportError(
                f"what rounding {name} changes is no finite number: its weights, or what they are multiplied by, are "
                f"too large to choose bits for; export with {option('quantize')} instead of a size, bits or a loss"
            )
    timed = sum(sizes[name] for name, options in choices.items() if options[0].time)
    rest = size_of_rest(graphs, sizes.keys(), folder)
    return Frontier(frontier(choices), sum(sizes.values()), rest, damage, timed)


@dataclass(frozen=True)
class Loss:
    """What a model loses by being stored in some way, measured by running it.

    Attributes:
        share: the loss that `max_loss` limits.
        words: what was measured, and on what.
    """

    share: float
    words: str


def expected_growth(mean_kl: float) -> float:
    """By how much perplexity grows on what the original would write: e to the mean divergence from it, less 1."""
    # Beyond all numbers it is infinite.
    with np.errstate(over="ignore"):
        return float(np.expm1(mean_kl))


# From a point, and points whose matrices will be needed again, to what the model loses at the first.
MeasureLoss = Callable[[Point, Sequence[Point]], Loss]


def size_of_rest(graphs: Sequence[ir.Model], matrices: Collection[str], folder: Path) -> int:
    """Bytes that a bundle takes beside its matrices: an upper bound.

    Args:
        graphs: of the bundle, not lowered yet.
        matrices: names of their weights.
        folder: of the bundle, with all files but the graphs and the manifest.
    """
    files = sum(file.stat().st_size for file in folder.iterdir())
    others = sum(
        value.const_value.nbytes
        for model in graphs
        for name, value in model.graph.initializers.items()
        if name not in matrices and value.const_value is not None
    )
    count = sum(len(list(model.graph)) for model in graphs)
    return files + others + count * _NODE + len(matrices) * _ALIGNMENT + _MANIFEST


def choose_point(frontier: Frontier, options: ExportOptions, measure: MeasureLoss, clock: Clock) -> Point:
    """The point that meets the goal of the options.

    Args:
        frontier: to choose from.
        options: with a goal.
        measure: called only where the goal is a loss.
        clock: gets the frontier, what was measured, and what was chosen as notes.

    Raises:
        InputError: no point meets the goal.
        UnsupportedError: there is no matrix to choose for.
    """
    if not frontier.weights:
        raise UnsupportedError(
            f"{option(options.goals[0])} has no matrix of this model to choose for, as where all products are "
            f"convolutions; export with {option('quantize')} int8"
        )
    clock.notes.extend(
        f"frontier: {frontier.size(point)}, estimated {frontier.damage} {point.damage:.4f}{frontier.pace(point)}"
        for point in frontier.at_even_distances(_ROWS)
    )
    clock.frontier.extend(frontier.record(point) for point in frontier.at_even_distances(_DRAWN))
    if options.max_loss is not None:
        point = _within_loss(frontier, options.max_loss, measure, clock)
    else:
        point = _within_target(frontier, options)
    kinds = Counter(str(choice) for choice in point.choices.values())
    formats = ", ".join(f"{count} in {name}" for name, count in sorted(kinds.items()))
    clock.frontier.append(frontier.record(point, chosen=True))
    clock.notes.append(f"chosen: {frontier.bits(point):.2f} bits per weight, {formats}{frontier.pace(point)}")
    return point


def describe_point(point: Point, accuracy_level: int) -> Quantization:
    """The manifest's record of how matrices are stored."""
    kinds = Counter(str(choice) for choice in point.choices.values())
    return Quantization(
        MIXED,
        accuracy_level=accuracy_level,
        matrices=len(point.choices),
        formats=dict(sorted(kinds.items())),
        products={name: str(choice) for name, choice in point.choices.items()},
    )


def _within_target(frontier: Frontier, options: ExportOptions) -> Point:
    smallest, rest, weights = frontier.points[0].size, frontier.rest, frontier.weights
    if options.target_size is not None:
        point = within_size(frontier.points, options.target_size - rest)
        if point is None:
            least = -(-(smallest + rest) // 10**5) / 10
            raise InputError(f"{option('target_size')} is too small: this model takes at least {least:.1f}MB")
        return point
    point = within_size(frontier.points, int((options.target_bits or 0.0) * weights / 8))
    if point is None:
        least = -(-800 * smallest // weights) / 100
        raise InputError(f"{option('target_bits')} is too small: this model takes at least {least:.2f}")
    return point


def _within_loss(frontier: Frontier, most: float, measure: MeasureLoss, clock: Clock) -> Point:
    best: list[Point] = []
    tried: list[Loss] = []

    def loss_of(point: Point) -> float:
        loss = measure(point, best[-1:])
        clock.notes.append(f"measured: {frontier.size(point)}: {loss.words}")
        clock.frontier.append(frontier.record(point, loss.share))
        if loss.share <= most:
            best.append(point)
        tried.append(loss)
        return loss.share

    worthwhile = _WORTHWHILE * (frontier.points[0].size + frontier.rest)
    point = smallest_within(frontier.points, loss_of, most, worthwhile)
    if point is None:
        raise InputError(
            f"{option('max_loss')} {100 * most:g}% cannot be kept by 8 bits or fewer: at "
            f"{frontier.size(frontier.points[-1])}, {tried[-1].words}; allow more, or export with "
            f"{option('quantize')} none"
        )
    return point
