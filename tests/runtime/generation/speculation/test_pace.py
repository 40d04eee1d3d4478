"""How many tokens are proposed."""

from __future__ import annotations

from collections import Counter

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


def proposals(pace, count, agreed, slope):
    """What is proposed in `count` runs whose further tokens take `slope` of a step each; `agreed` of them are right."""
    found = []
    for _ in range(count):
        size = pace.wanted(SIZES[-1])
        found.append(size)
        if size:
            pace.tried(size, min(agreed, size), 1 + slope * size)
        else:
            pace.stepped(1.0)
    return found


def waits(found):
    """The numbers of plain steps before each proposal."""
    return [len(part) for part in "".join("p" if size else "." for size in found).split("p")[:-1]]


def test_first_proposals():
    """Two of three are taken to be right, a token for a quarter of a step: 2 give (1 + 2/3 + 4/9) / 1.5 = 1.41 tokens
    a step, 4 give 2.60 / 2 = 1.30, all more give less."""
    assert proposals(Pace(), 7, 2, 0.25) == [0, 0, 0, 0, 0, 0, 2]


@pytest.mark.parametrize(
    ("most", "slope", "expected"), [(12, 0.25, 12), (11, 0.25, 8), (12, 1 / 64, 12), (7, 0.25, 4), (3, 0.25, 2)]
)
def test_as_many_as_pay_off_best(most, slope, expected):
    """Where all are right, n give (1 + n) / (1 + n / 4) tokens a step, which grows with n."""
    pace = Pace()
    proposals(pace, 60, 12, slope)
    assert pace.wanted(most) == expected


def test_the_first_run_of_a_size_tells_no_times():
    """A plain step that seemed to take a hundredth of the others would make all runs look expensive."""
    pace = Pace()
    pace.stepped(0.01)
    proposals(pace, 60, 12, 0.25)
    assert pace.wanted(12) == 12


def test_a_further_token_costs_a_64th_of_a_step_at_least():
    """Nothing is right, and runs take as long as steps. After n runs the share is s = 2 * 0.9^n / (10 - 7 * 0.9^n),
    and two tokens give (1 + s + s^2) / (1 + 2 / 64) a step: less than 1.05 from n = 12 on, where s is 0.071. Until four
    runs were measured a quarter of a step is assumed, by which the second and the third do not pay off."""
    assert waits(proposals(Pace(), 6 + 4 + 8 + 12 + 16 + 1, 0, 0.0)) == [6, 0, 4, 8, *[0] * 8, 16]


def test_what_is_proposed_is_counted():
    pace = Pace()
    found = proposals(pace, 9, 1, 0.25)
    assert (pace.proposed, pace.accepted) == (sum(found), 3)


def test_patience_doubles_up_to_a_limit():
    """Nothing is right. Two runs change 2 and 1 to 1.62 and 2.71: a share of 0.374 gives 1.01 tokens a step."""
    found = proposals(Pace(), 6 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256 + 256 + 9, 0, 0.25)
    assert waits(found) == [6, 0, 4, 8, 16, 32, 64, 128, 256, 256]
    # Where no size pays off, the smallest is tried.
    assert set(found) == {0, 2}


def test_a_run_that_pays_off_halves_the_patience():
    """The next wait would be 32. Two of two at a quarter of a step each are 3 tokens in the time of 1.5."""
    pace = Pace()
    assert waits(proposals(pace, 6 + 2 + 4 + 1 + 8 + 1 + 16, 0, 0.25)) == [6, 0, 4, 8]
    assert proposals(pace, 1, 2, 0.25) == [2]
    after = waits(proposals(pace, 60, 0, 0.25))
    assert [wait for wait in after if wait][:2] == [16, 32]


def test_expensive_runs_do_not_pay_off_even_if_all_is_right():
    """1 + n tokens in the time of 1 + n steps, which is found out once four runs were measured."""
    found = proposals(Pace(), 200, 12, 1.0)
    assert waits(found)[-3:] == [16, 32, 64]


@pytest.mark.parametrize("slope", [1.0, 4.0])
def test_four_runs_of_a_size_show_what_it_costs(slope):
    """Until then a quarter of a step is assumed, which pays off; after six plain steps."""
    found = proposals(Pace(), 60, 12, slope)
    assert found[:6] == [0] * 6
    tried = found[6 : found.index(0, 6)]
    counts = Counter(tried)
    assert counts.pop(tried[-1]) == 4 and all(count < 4 for count in counts.values())
