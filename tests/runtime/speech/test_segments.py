"""A window's tokens as segments. Tokens from 100 on are times of 0.02 s each; 1, 2, … are words."""

from __future__ import annotations

import pytest

from triform.runtime.speech.segments import WindowSegment, WindowSplit, split_window

TIME = 100
STEPS = 50


def split(tokens, **options):
    return split_window(tokens, TIME, STEPS, **options)


def test_a_pair_ends_a_segment_and_the_next_window_starts_there():
    found = split([100, 1, 2, 110, 110, 3, 120, 121, 4])
    assert found == WindowSplit([WindowSegment(0, 10, [100, 1, 2, 110]), WindowSegment(10, 20, [110, 3, 120])], 20)


def test_a_single_time_at_the_end_ends_the_window():
    found = split([100, 1, 110, 112, 2, 130])
    assert found == WindowSplit([WindowSegment(0, 10, [100, 1, 110]), WindowSegment(12, 30, [112, 2, 130])], None)


def test_without_a_pair_the_window_is_one_segment():
    assert split([105, 1, 2, 130]) == WindowSplit([WindowSegment(0, 30, [105, 1, 2, 130])], None)
    assert split([105, 1, 2]) == WindowSplit([WindowSegment(0, 5, [105, 1, 2])], None)
    assert split([100, 1, 2]) == WindowSplit([WindowSegment(0, STEPS, [100, 1, 2])], None)
    assert split([]) == WindowSplit([WindowSegment(0, STEPS, [])], None)


def test_what_was_begun_may_be_kept():
    tokens = [100, 1, 110, 112, 2, 3]
    assert split(tokens) == WindowSplit([WindowSegment(0, 10, [100, 1, 110])], 10)
    kept = [WindowSegment(0, 10, [100, 1, 110]), WindowSegment(12, STEPS, [112, 2, 3])]
    assert split(tokens, keep_rest=True) == WindowSplit(kept, None)


@pytest.mark.parametrize("keep", [False, True])
def test_nothing_was_begun(keep):
    assert split([100, 1, 110, 110], keep_rest=keep) == WindowSplit([WindowSegment(0, 10, [100, 1, 110])], 10)
