"""Bytes go where they buy most: by arithmetic that a reader can redo."""

from __future__ import annotations

import pytest

from triform.export.quantize.mixed.allocation import Choice, frontier, within_size

# The first step of a saves 6 for 10 bytes, its second 1 for 10; b's only step saves 8 for 40.
A = [Choice(4, 32, 10, 8.0), Choice(4, 16, 20, 2.0), Choice(8, 32, 30, 1.0)]
B = [Choice(4, 32, 20, 9.0), Choice(8, 32, 60, 1.0)]


def test_the_steps_come_in_the_order_of_what_a_byte_saves():
    points = frontier({"a": A, "b": B})
    assert [(point.size, point.damage) for point in points] == [(30, 17.0), (40, 11.0), (80, 3.0), (90, 2.0)]


def test_a_choice_above_the_line_between_two_others_is_left_out():
    above = Choice(4, 64, 20, 8.0)
    points = frontier({"a": [A[0], above, Choice(8, 32, 30, 2.0)]})
    assert [point.size for point in points] == [10, 30]


def test_a_larger_choice_that_damages_more_is_left_out():
    points = frontier({"a": [*A, Choice(8, 128, 25, 3.0)]})
    assert [point.size for point in points] == [10, 20, 30]


def test_the_best_point_of_a_size():
    points = frontier({"a": A, "b": B})
    assert within_size(points, 49).size == 40
    # b's step takes 40 bytes, which are not left, and a's second step 10, which are.
    assert (within_size(points, 79).size, within_size(points, 79).damage) == (50, 10.0)
    assert within_size(points, 80).choices == {"a": A[1], "b": B[1]}
    assert within_size(points, 29) is None


def test_a_step_that_does_not_fit_leaves_its_bytes_to_others():
    table = [Choice(4, 32, 10, 10.0), Choice(8, 32, 30, 0.0)]
    product = [Choice(4, 32, 1, 1.0), Choice(8, 32, 2, 0.9)]
    point = within_size(frontier({"table": table, "product": product}), 15)
    assert point is not None
    assert (point.size, point.choices) == (12, {"table": table[0], "product": product[1]})


def test_time_is_a_price_beside_bytes():
    """A weight's time is worth a quarter of 4.56 bits, 0.1425 bytes: 1,000 of it as much as 142.5 bytes.

    The fine choice saves 5 for 300 bytes and no time, or for 300 bytes and 1,000 of time; the other matrix 4 for 300.
    """
    other = [Choice(4, 64, 700, 5.0, 1000.0), Choice(8, 128, 1000, 1.0, 1000.0)]
    for time, first in ((1000.0, "fine"), (2000.0, "other")):
        fine = [Choice(4, 64, 700, 6.0, 1000.0), Choice(8, 32, 1000, 1.0, time)]
        points = frontier({"fine": fine, "other": other})
        assert [point.choices[first].bits for point in points] == [4, 8, 8]
        assert points[0].time == 2000.0
        assert points[-1].time == 1000.0 + time


def test_a_slow_choice_is_left_out_where_a_faster_one_of_its_size_damages_little_more():
    start, fast = Choice(4, 64, 100, 10.0, 100.0), Choice(6, 128, 160, 2.0, 100.0)
    best = Choice(8, 128, 200, 0.0, 100.0)
    # Without time it would be on the line between its neighbours, or below: 1.8 + 0 is less than 2.0.
    for time, kept in ((100.0, 160), (1000.0, 160)):
        slow = Choice(5, 32, 159, 1.99, time)
        points = frontier({"a": [start, fast, slow, best]})
        assert [point.size for point in points] == [100, *([159] if time == 100.0 else [kept]), 200]


def test_of_two_choices_of_one_size_the_slower_is_a_step_of_its_own():
    points = frontier({"a": [Choice(4, 64, 10, 8.0, 10.0), Choice(6, 64, 20, 4.0, 10.0), Choice(5, 32, 20, 3.5, 30.0)]})
    assert [(point.size, point.damage) for point in points] == [(10, 8.0), (20, 4.0), (20, 3.5)]


def test_the_smallest_choice_is_the_first_point_however_slow_it_is():
    points = frontier({"a": [Choice(4, 16, 10, 8.0, 1000.0), Choice(8, 128, 20, 4.0, 10.0)]})
    assert [point.size for point in points] == [10, 20]
    assert within_size(points, 10) == points[0]
    assert points[1].time == pytest.approx(10.0)
