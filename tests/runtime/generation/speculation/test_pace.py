"""How many tokens are proposed."""

from __future__ import annotations

import pytest

from triform.runtime.generation.speculation.pace import SIZES, Pace


@pytest.mark.parametrize("most", [-1, 0, 1, SIZES[-1] + 1])
def test_never_more_than_there_is_room_for(most):
    """Whatever was found to pay off."""
    pace, wanted = Pace(), set()
    for number in range(40):
        count = pace.wanted(most)
        wanted.add(count)
        if count:
            pace.tried(count, count if number % 3 else 0, 0.01)
        else:
            pace.stepped(0.01)
    assert 0 <= min(wanted) and max(wanted) <= max(most, 0)
    assert most < SIZES[0] or max(wanted) > 0
