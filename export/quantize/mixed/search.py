"""Looks for the smallest point of a frontier that loses little enough; each loss that is measured takes long."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from triform.export.quantize.mixed.allocation import Point

# Tries that are led by the estimated damage, after the first.
_GUESSES = 4
# Of the damage that losses grow with.
_LEAST_POWER, _LARGEST_POWER = 0.4, 2.5
# How far two tries are apart at least, in the logarithm of the damage, so that they tell the power.
_FAR = 0.2
# Of the logarithm of the damage from one try to the next: beyond all points.
_LARGEST_CHANGE = 100.0


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
        index = _next(points, range(low, high + 1), tried, most, worthwhile)
        loss = loss_of(points[index])
        tried.append((points[index].damage, loss))
        # Written so that NaN does not hold.
        if loss <= most:
            best, high = points[index], index - 1
        else:
            low = index + 1
    return best


def _next(
    points: Sequence[Point], left: range, tried: Sequence[tuple[float, float]], most: float, worthwhile: float
) -> int:
    """The index of the point to try next, of those that are left."""
    # Where a large table has its next step all that are left may be of about one size: the best of them tells.
    if points[left[-1]].size - points[left[0]].size <= worthwhile:
        return left[-1]
    if 0 < len(tried) <= _GUESSES:
        guess = _guess(points, left, _wanted(tried, most), worthwhile)
        if guess is not None:
            return guess
    return _nearest(points, left)


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


def _nearest(points: Sequence[Point], left: range) -> int:
    """The index of the point whose size is nearest to the middle of the first and the last one."""
    middle = (points[left[0]].size + points[left[-1]].size) / 2
    return min(left, key=lambda index: abs(points[index].size - middle))
