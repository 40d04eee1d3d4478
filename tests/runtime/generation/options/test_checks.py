"""The limits of single options, one step inside and one outside."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.errors import InputError
from triform.runtime.generation.options.checks import (
    above_zero,
    at_least_one,
    at_most,
    between,
    check,
    check_ids,
    check_one_of,
    finite,
    not_negative,
    whole_from_zero,
)

JUST_ABOVE, JUST_BELOW = math.nextafter(0, 1), math.nextafter(0, -1)


@pytest.mark.parametrize(
    ("rule", "good", "bad", "expected"),
    [
        (finite(), [-1e30, 0, 1e30], [], ""),
        (not_negative(), [0, 0.0, JUST_ABOVE, 1e30], [JUST_BELOW, -1], "0 or more"),
        (at_most(2.5), [2.5, -1e30], [math.nextafter(2.5, 3), 3], r"at most 2\.5"),
        (between(-1, 2), [-1, 0, 2], [math.nextafter(-1, -2), math.nextafter(2, 3)], "between -1 and 2"),
        (above_zero(), [JUST_ABOVE, 1, 1e300], [0, 0.0, -1], "above 0"),
        (above_zero(4), [JUST_ABOVE, 4], [0, math.nextafter(4, 5)], "above 0 and at most 4"),
        (at_least_one(), [1, 2, 10**30, np.int64(1)], [0, -1], "at least 1"),
        (whole_from_zero(), [0, 1, 10**30], [-1], "0 or more"),
        (whole_from_zero(5), [0, 4], [-1, 5], "between 0 and 4"),
    ],
)
def test_ranges(rule, good, bad, expected):
    for value in good:
        rule.judge("size", value)
    for value in bad:
        with pytest.raises(InputError, match=f"^`size` must be {expected}, not "):
            rule.judge("size", value)


@pytest.mark.parametrize("rule", [finite(), not_negative(), at_most(5), between(-1, 2), above_zero(), above_zero(3)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", None, True, False, [1], 1j])
def test_what_is_no_finite_number(rule, value):
    with pytest.raises(InputError, match=r"^`size` must be a finite number, not "):
        rule.judge("size", value)


@pytest.mark.parametrize("rule", [at_least_one(), whole_from_zero(), whole_from_zero(9)])
@pytest.mark.parametrize("value", [1.0, 1.5, math.nan, "1", None, True])
def test_what_is_no_whole_number(rule, value):
    with pytest.raises(InputError, match=r"^`size` must be a whole number, not "):
        rule.judge("size", value)


def test_options_that_are_not_given_are_not_checked():
    options = SimpleNamespace(first=None, second=3, third=0)
    check(options, at_least_one(), "first", "second")
    with pytest.raises(InputError, match=r"^`third` must be at least 1, not 0$"):
        check(options, at_least_one(), "first", "second", "third")


def test_one_of_a_few_words():
    options = SimpleNamespace(kind="c")
    check_one_of(options, ["a", "b", "c"], "kind")
    with pytest.raises(InputError, match=r"^`kind` must be a, b or d, not 'c'$"):
        check_one_of(options, ["a", "b", "d"], "kind")


def test_token_ids():
    check_ids("tokens", [0, 1, np.int64(7)])
    for ids in ([3, -1], [True], [1.0], ["1"]):
        with pytest.raises(InputError, match=r"^`tokens` must be "):
            check_ids("tokens", ids)
