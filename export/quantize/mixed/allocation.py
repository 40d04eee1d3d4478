"""Chooses among the ways to store each matrix: bytes go where they buy most.

Of each matrix only the choices on the lower convex hull of damage over bytes count. All start at their smallest; steps
along the hulls are taken in the order of damage saved per byte, as far as they fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Choice:
    """One way to store one matrix.

    Attributes:
        bits: per weight, without scales and zero points.
        block_size: weights that share a scale; None where a column of outputs shares one.
        size: bytes, with scales and zero points.
        damage: estimated change of the model's results; of a decoder the divergence of its predictions, in nats.
    """

    bits: int
    block_size: int | None
    size: int
    damage: float

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


def frontier(choices: Mapping[str, Sequence[Choice]]) -> list[Point]:
    """All points from the smallest to the best, by size.

    Args:
        choices: by matrix, at least one each.
    """
    hulls = {name: _hull(options) for name, options in choices.items()}
    steps = [
        ((before.damage - after.damage) / (after.size - before.size), name, after)
        for name, hull in hulls.items()
        for before, after in pairwise(hull)
    ]
    chosen = {name: hull[0] for name, hull in hulls.items()}
    points = [_point(chosen)]
    # Along one hull the savings per byte fall, so that a matrix's own steps stay in order.
    for _, name, after in sorted(steps, key=lambda step: -step[0]):
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
    """The lower convex hull, from the smallest to the least damaging."""
    hull: list[Choice] = []
    for choice in sorted(choices, key=lambda item: (item.size, item.damage)):
        if hull and choice.damage >= hull[-1].damage:
            continue
        while len(hull) > 1 and _slope(hull[-2], choice) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(choice)
    return hull


def _slope(first: Choice, second: Choice) -> float:
    return (second.damage - first.damage) / max(second.size - first.size, 1)


def _point(chosen: Mapping[str, Choice]) -> Point:
    return Point(
        sum(choice.size for choice in chosen.values()),
        sum(choice.damage for choice in chosen.values()),
        dict(chosen),
    )
