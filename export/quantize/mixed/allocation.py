"""Chooses among the ways to store each matrix: bytes and time go where they buy most.

Each choice has a price: its bytes, and those that the time of its product is worth. Of each matrix only the choices on
the lower convex hull of damage over prices count. All start at their smallest; steps along the hulls are taken in the
order of damage saved for their price, as far as their bytes fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# What a weight's time in 4 bits and blocks of 64 is worth, in bytes: a quarter of the 4.56 bits that it takes there, so
# that one percent of time is worth a quarter of a percent of bytes. Products of SmolLM2-135M in 105 MB take 1.16 times
# as long as in int4 where time is worth nothing, 1.10 at this rate, for 4 percent more damage, and 1.07 at four times
# this rate, for 24 percent.
_BYTES_FOR_TIME = 0.25 * 4.56 / 8


@dataclass(frozen=True)
class Choice:
    """One way to store one matrix.

    Attributes:
        bits: per weight, without scales and zero points.
        block_size: weights that share a scale; None where a column of outputs shares one.
        size: bytes, with scales and zero points.
        damage: estimated change of the model's results; of a decoder the divergence of its predictions, in nats.
        time: of its product, in what a weight takes in 4 bits with blocks of 64; 0 where nothing is known of it.
    """

    bits: int
    block_size: int | None
    size: int
    damage: float
    time: float = 0.0

    @property
    def price(self) -> float:
        """Its bytes, and those that its time is worth."""
        return self.size + _BYTES_FOR_TIME * self.time

    def __str__(self) -> str:
        return f"{self.bits} bit " + ("by column" if self.block_size is None else f"in blocks of {self.block_size}")


@dataclass(frozen=True)
class Point:
    """A choice for every matrix.

    Attributes:
        size: bytes of all matrices.
        damage: estimated, of all matrices.
        choices: by matrix.
    """

    size: int
    damage: float
    choices: dict[str, Choice]

    @property
    def time(self) -> float:
        """Of all products, see `Choice`."""
        return sum(choice.time for choice in self.choices.values())


def frontier(choices: Mapping[str, Sequence[Choice]]) -> list[Point]:
    """All points from the smallest to the best, by size.

    Args:
        choices: by matrix, at least one each.
    """
    hulls = {name: _hull(options) for name, options in choices.items()}
    steps = [(_slope(before, after), name, after) for name, hull in hulls.items() for before, after in pairwise(hull)]
    chosen = {name: hull[0] for name, hull in hulls.items()}
    points = [_point(chosen)]
    # Along one hull what is saved for its price falls, so that a matrix's own steps stay in order.
    for _, name, after in sorted(steps, key=lambda step: step[0]):
        chosen = chosen | {name: after}
        points.append(_point(chosen))
    return points


def within_size(points: Sequence[Point], size: int) -> Point | None:
    """The best point of at most `size` bytes; None if even the smallest has more.

    A matrix whose next step does not fit, such as a large table's, stays as it is; the others go on.

    Args:
        points: of `frontier`.
        size: in bytes.
    """
    last = max((index for index, point in enumerate(points) if point.size <= size), default=None)
    if last is None:
        return None
    best, full = points[last], set()
    for before, after in pairwise(points[last:]):
        name = next(name for name, choice in after.choices.items() if choice != before.choices[name])
        taken = _point(best.choices | {name: after.choices[name]})
        if name in full or taken.size > size:
            full.add(name)
        else:
            best = taken
    return best


def _hull(choices: Sequence[Choice]) -> list[Choice]:
    """The lower convex hull, from the smallest to the least damaging; none is smaller than the one before."""
    hull = [min(choices, key=lambda item: (item.size, item.damage))]
    for choice in sorted(choices, key=lambda item: (item.price, item.damage)):
        if choice.damage >= hull[-1].damage or choice.size < hull[-1].size:
            continue
        while len(hull) > 1 and _slope(hull[-2], choice) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(choice)
    return hull


def _slope(first: Choice, second: Choice) -> float:
    """The damage that is added for a price; what costs less and damages less comes first."""
    return (second.damage - first.damage) / max(second.price - first.price, 1)


def _point(chosen: Mapping[str, Choice]) -> Point:
    return Point(
        sum(choice.size for choice in chosen.values()),
        sum(choice.damage for choice in chosen.values()),
        dict(chosen),
    )
