"""Chooses among the ways to store each matrix: bytes go where they buy most.

Of each matrix only the choices on the lower convex hull of damage over bytes count. All start at their smallest; steps
along the hulls are taken in the order of damage saved per byte.
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
        block_size: weights that share a scale.
        size: bytes, with scales and zero points.
        damage: estimated divergence of the model's predictions, in nats.
    """

    bits: int
    block_size: int
    size: int
    damage: float

    def __str__(self) -> str:
        return f"{self.bits} bit in blocks of {self.block_size}"


@dataclass(frozen=True)
class Point:
    """A choice for every matrix.

    Attributes:
        size: bytes of all matrices.
        damage: estimated, in nats.
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
    """The best point of at most `size` bytes; None if even the smallest has more."""
    return next((point for point in reversed(points) if point.size <= size), None)


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
