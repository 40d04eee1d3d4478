"""Bytes go where they buy most: by arithmetic that a reader can redo."""

from __future__ import annotations

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
