"""A rule for one value of a manifest, and the kinds of rules that many values share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Graphs store lengths as int32. No model has more tokens, positions or vector dimensions.
LARGEST = 2**31 - 1


class Limit(NamedTuple):
    """Whether a value is in range.

    Attributes:
        key: of the value, such as ``cache.layers[0].head_dim``.
        value: the value.
        fits: whether it is in range.
        allowed: the range, for the message, such as "at least 1".
    """

    key: str
    value: object
    fits: bool
    allowed: str


def within(key: str, value: float | None, least: float, most: float = LARGEST) -> Limit:
    """Require a number from `least` to `most`, both included, or None."""
    fits = value is None or least <= value <= most
    below = value is not None and value < least
    return Limit(key, value, fits, f"at least {least}" if below else f"at most {most}")


def one_of(key: str, value: str | None, words: Sequence[str]) -> Limit:
    """Require one of a few words, or None."""
    return Limit(key, value, value is None or value in words, " or ".join(words))


def token_id(key: str, token: int | None, vocab_size: int) -> Limit:
    """Require a token of the vocabulary, or None."""
    fits = token is None or 0 <= token < vocab_size
    return Limit(key, token, fits, f"a token id from 0 to {vocab_size - 1}")


def token_ids(key: str, tokens: Sequence[int], vocab_size: int) -> Iterator[Limit]:
    """Require tokens of the vocabulary."""
    for index, token in enumerate(tokens):
        yield token_id(f"{key}[{index}]", token, vocab_size)
