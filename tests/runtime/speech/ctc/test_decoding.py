"""Best paths by the rule: equal tokens in a row are one, and blanks part them."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.speech.ctc.decoding import FramedToken, GreedyDecoder


def frames(tokens, likely=0.6, count=4):
    """Log-probabilities in which each of these tokens is the likeliest of its frame."""
    table = np.full((len(tokens), count), (1 - likely) / (count - 1))
    table[np.arange(len(tokens)), tokens] = likely
    return np.log(table).astype(np.float32)


def decoded(tokens, blank=0, size=100):
    decoder, table = GreedyDecoder(blank), frames(tokens)
    found = [token for start in range(0, len(tokens), size) for token in decoder.feed(table[start : start + size])]
    found += decoder.finish()
    assert decoder.finish() == []
    return [(token.token, token.start, token.end) for token in found]


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], []), ([0, 0], []), ([1], [(1, 0, 1)]), ([1, 1, 1], [(1, 0, 3)]), ([0, 1, 0, 1, 0], [(1, 1, 2), (1, 3, 4)]),
        ([1, 2, 2, 3], [(1, 0, 1), (2, 1, 3), (3, 3, 4)]), ([0, 2, 2, 0, 0, 2], [(2, 1, 3), (2, 5, 6)]),
    ],
)  # fmt: skip
def test_tokens_and_their_frames(tokens, expected, size):
    assert decoded(tokens, size=size) == expected


def test_another_blank():
    assert decoded([0, 3, 0, 0], blank=3) == [(0, 0, 1), (0, 2, 4)]


def test_what_later_frames_may_go_on_is_kept():
    decoder = GreedyDecoder(0)
    assert decoder.feed(frames([1, 1])) == [] and decoder.feed(frames([1])) == []
    (token,) = decoder.feed(frames([0]))
    assert (token.token, token.start, token.end) == (1, 0, 3) and decoder.finish() == []


def test_the_highest_probability_of_its_frames():
    decoder = GreedyDecoder(0)
    decoder.feed(np.concatenate([frames([1], 0.5), frames([1], 0.9), frames([1], 0.7)]))
    assert decoder.finish() == [FramedToken(1, 0, 3, pytest.approx(np.log(0.9)))]
