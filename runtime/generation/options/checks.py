"""Checks of single options. Each failure is one line that names the option."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

from triform.runtime.errors import InputError, option

# Logits times or divided by such a number are still numbers, and it is far beyond what makes a difference.
STRONGEST = 1e6
# Logits are float32, and further steps may make them larger.
LARGEST_BIAS = 1e30
# An exponent of the answer's length.
STEEPEST = 100
# Positions in graphs are int32.
MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class Check:
    """The type and range of a number.

    Attributes:
        kind: Integral or Real.
        fits: whether a number of that kind is in range.
        expected: the range in words, for the message.
    """

    kind: type
    fits: Callable[[Any], bool]
    expected: str

    def judge(self, name: str, value: object) -> None:
        """Check one value.

        Raises:
            InputError: it is of another type, not finite, or out of range.
        """
        # bool counts as Integral, but True as a number is a mistake.
        number = isinstance(value, self.kind) and not isinstance(value, bool)
        if not number or (isinstance(value, float) and not math.isfinite(value)):
            kind = "a whole number" if self.kind is Integral else "a finite number"
            raise InputError(f"{option(name)} must be {kind}, not {value!r}")
        if not self.fits(value):
            raise InputError(f"{option(name)} must be {self.expected}, not {value}")


def check(options: object, rule: Check, *names: str) -> None:
    """Check those of the named attributes of `options` that are not None.

    Raises:
        InputError: see `Check.judge`.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None:
            rule.judge(name, value)


def check_one_of(options: object, choices: Sequence[str], name: str) -> None:
    """Check that an attribute of `options` is one of a few words.

    Raises:
        InputError: it is none of them.
    """
    value = getattr(options, name)
    if value not in choices:
        raise InputError(f"{option(name)} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}")


def finite() -> Check:
    """Any number."""
    return Check(Real, lambda value: True, "a number")


def not_negative() -> Check:
    """0 or more."""
    return Check(Real, lambda value: value >= 0, "0 or more")


def at_most(high: float) -> Check:
    """No more than `high`, beyond which numbers overflow."""
    return Check(Real, lambda value: value <= high, f"at most {high:.10g}")


def between(low: float, high: float) -> Check:
    """From `low` to `high`, both inclusive."""
    return Check(Real, lambda value: low <= value <= high, f"between {low} and {high}")


def above_zero(high: float = math.inf) -> Check:
    """More than 0, and at most `high`."""
    expected = "above 0" if high == math.inf else f"above 0 and at most {high}"
    return Check(Real, lambda value: 0 < value <= high, expected)


def at_least_one() -> Check:
    """1, 2, 3, …."""
    return Check(Integral, lambda value: value >= 1, "at least 1")


def whole_from_zero(high: int | None = None) -> Check:
    """0, 1, 2, …, and less than `high` unless that is None."""
    expected = "0 or more" if high is None else f"between 0 and {high - 1}"
    return Check(Integral, lambda value: value >= 0 and (high is None or value < high), expected)


def whole_between(low: int, high: int, expected: str) -> Check:
    """A whole number from `low` to `high`, both inclusive; `expected` is the range in words."""
    return Check(Integral, lambda value: low <= value <= high, expected)


def check_ids(name: str, ids: object) -> None:
    """Check token ids.

    Raises:
        InputError: an id is not a whole number, or is negative; or there is no list of them.
    """
    rule = Check(Integral, lambda value: value >= 0, "a token id of 0 or more")
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InputError(f"{option(name)} must be a list of token ids, not {ids!r:.60}")
    for token in ids:
        rule.judge(name, token)


def check_list_of_texts(name: str, texts: object) -> None:
    """Check that texts are in a list: of one text each letter would count as a text.

    Raises:
        InputError: there is no list, or something else than texts is in it.
    """
    listed = isinstance(texts, Iterable) and not isinstance(texts, str | bytes | Mapping)
    if not (listed and all(isinstance(text, str) for text in cast("Iterable[object]", texts))):
        raise InputError(f"{option(name)} must be a list of texts, not {texts!r:.60}")


def check_is(options: object, kind: type, name: str) -> None:
    """Check that an attribute of `options` is of a class.

    Raises:
        InputError: it is of another one.
    """
    value = getattr(options, name)
    if not isinstance(value, kind):
        raise InputError(f"{option(name)} must be a {kind.__name__}, not {value!r:.60}")
