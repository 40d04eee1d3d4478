"""Chooses the point of a frontier that meets what a user wants, or refuses it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.export.options import MIXED, ExportOptions
from triform.export.quantize.mixed.allocation import Choice, Point, frontier, within_size
from triform.export.report import Clock, FrontierPoint
from triform.runtime.bundle.manifest import Quantization
from triform.runtime.errors import InputError, UnsupportedError, option

# Bytes that a node takes in the graph's file, that the alignment of a matrix' three constants takes in the data file,
# and that the manifest takes: generous, because a target is a limit.
_NODE, _ALIGNMENT, _MANIFEST = 800, 3 * 4096, 60_000
# Lines of the table, and points of a drawing.
_ROWS, _DRAWN = 8, 40
# A smaller bundle is no longer looked for when it would save less than this share.
_WORTHWHILE = 0.005
# Tries that are led by the estimated damage, after the first.
_GUESSES = 4
_LEAST_POWER, _LARGEST_POWER, _FAR = 0.4, 2.5, 0.2
# Of the logarithm of the damage from one try to the next: beyond all points.
_LARGEST_CHANGE = 100.0


@dataclass(frozen=True)
class Frontier:
    """The ways to store a whole model.

    Attributes:
        points: from the smallest to the best, by size.
        weights: in all matrices.
        rest: bytes of everything else in the bundle.
        damage: what the damage of a point estimates, in words.
    """

    points: list[Point]
    weights: int
    rest: int
    damage: str

    def size(self, point: Point) -> str:
        """The size of the bundle, and the bits per weight, in words."""
        return f"{(point.size + self.rest) / 1e6:.1f} MB, {8 * point.size / self.weights:.2f} bits per weight"

    def record(self, point: Point, loss: float | None = None, *, chosen: bool = False) -> FrontierPoint:
        """The point as a report has it."""
        return FrontierPoint(point.size + self.rest, 8 * point.size / self.weights, point.damage, loss, chosen)

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
    """
    return Frontier(frontier(choices), sum(sizes.values()), size_of_rest(graphs, sizes.keys(), folder), damage)


@dataclass(frozen=True)
class Loss:
    """What a model loses by being stored in some way, measured by running it.

    Attributes:
        share: the loss that `max_loss` limits.
        words: what was measured, and on what.
    """

    share: float
    words: str


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
        f"frontier: {frontier.size(point)}, estimated {frontier.damage} {point.damage:.4f}"
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
    clock.notes.append(f"chosen: {8 * point.size / frontier.weights:.2f} bits per weight, {formats}")
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


def smallest_within(
    points: Sequence[Point], loss_of: Callable[[Point], float], most: float, worthwhile: float
) -> Point | None:
    """Look for the smallest point that loses at most so much, as if every larger one lost less.

    The first try is in the middle. The next ones are led by the estimated damages. Where these do not end the search
    the rest is bisected.

    Args:
        points: by size.
        loss_of: measures one; called for as few as possible. What is no number is above every limit.
        most: that may be lost.
        worthwhile: a smaller point that saves fewer bytes is not looked for.

    Returns:
        None if not even the last point is within the limit.
    """
    low, high, best = 0, len(points) - 1, None
    tried: list[tuple[float, float]] = []
    while low <= high:
        span = (points[high] if best is None else best).size - points[low].size
        if span <= worthwhile and best is not None:
            break
        # Where a large table has its next step all that are left may be of about one size: the best of them tells.
        close = points[high].size - points[low].size <= worthwhile
        led = 0 < len(tried) <= _GUESSES
        guess = _guess(points, range(low, high + 1), _wanted(tried, most), worthwhile) if led else None
        middle = high if close else _nearest(points, low, high) if guess is None else guess
        loss = loss_of(points[middle])
        tried.append((points[middle].damage, loss))
        # Written so that NaN does not hold.
        if loss <= most:
            best, high = points[middle], middle - 1
        else:
            low = middle + 1
    return best


def _wanted(tried: Sequence[tuple[float, float]], most: float) -> float:
    """The damage that goes with a loss, if losses grow with a power of the damage, or NaN: that of the last two tries.

    Args:
        tried: damages and losses, at least one.
        most: the loss.
    """
    damage, loss = tried[-1]
    if not damage > 0 or not 0 < loss < math.inf:
        return math.nan
    power = 1.0
    if len(tried) > 1:
        other_damage, other_loss = tried[-2]
        known = other_damage > 0 and 0 < other_loss < math.inf
        distance = math.log(damage) - math.log(other_damage) if known else 0.0
        # Two tries close to each other tell more of chance than of the power.
        if abs(distance) > _FAR:
            power = (math.log(loss) - math.log(other_loss)) / distance
    change = (math.log(most) - math.log(loss)) / min(max(power, _LEAST_POWER), _LARGEST_POWER)
    return damage * math.exp(min(change, _LARGEST_CHANGE))


def _guess(points: Sequence[Point], left: range, wanted: float, worthwhile: float) -> int | None:
    """The index of the first point whose damage is as small as wanted, but for those too near to what was tried.

    Args:
        points: by size.
        left: indices of those among which the answer is; those before and behind them were tried, if there are any.
        wanted: the largest damage, or NaN.
        worthwhile: as many bytes the point must be from those that were tried.
    """
    least = points[left[0] - 1].size + worthwhile if left[0] > 0 else -math.inf
    largest = points[left[-1] + 1].size - worthwhile if left[-1] + 1 < len(points) else math.inf
    able = [index for index in left if least <= points[index].size <= largest]
    if not able or math.isnan(wanted):
        return None
    return next((index for index in able if points[index].damage <= wanted), able[-1])


def _nearest(points: Sequence[Point], low: int, high: int) -> int:
    """The index of the point whose size is nearest to the middle between two points."""
    middle = (points[low].size + points[high].size) / 2
    return min(range(low, high + 1), key=lambda index: abs(points[index].size - middle))
