"""What a draft model and a form of answers propose, with steps and forms that are written down."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.generation.speculation.draft import Draft
from triform.runtime.generation.speculation.forced import ForcedTokens
from triform.runtime.likeliest import Likeliest


class Counting:
    """Says that the token after n is n + 1, and remembers what it was fed."""

    wanted = None

    def __init__(self, size=20):
        self.size, self.fed = size, []

    def prefill(self, ids):
        self.fed.append(list(ids))
        return np.eye(self.size, dtype=np.float32)[ids[-1] + 1]

    def next(self, token):
        return self.prefill([token])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_draft_feeds_each_token_once(count):
    step = Counting()
    found = Draft(step, context=100, vocab_size=20)(np.array([9, 3]), count)
    assert (found.dtype, found.tolist()) == (np.int64, list(range(4, 4 + count)))
    # The last proposal is not fed.
    assert step.fed == [[9, 3], *([token] for token in range(4, 3 + count))]
    assert step.wanted == 1


def test_a_draft_stays_within_its_context():
    step = Counting()
    draft = Draft(step, context=6, vocab_size=20)
    assert draft(np.array([1, 2, 3]), 3).tolist() == [4, 5, 6]
    step.fed.clear()
    assert draft(np.array([1, 2, 3]), 4).tolist() == []
    assert step.fed == []


def test_a_draft_proposes_no_token_that_the_model_lacks():
    draft = Draft(Counting(), context=100, vocab_size=6)
    assert draft(np.array([2]), 3).tolist() == [3, 4, 5]
    assert draft(np.array([3]), 3).tolist() == []


def test_a_draft_on_a_device():
    class Device(Counting):
        def prefill(self, ids):
            return Likeliest(ids[-1] + 2, np.zeros(0, np.int64), np.zeros(0, np.float32))

    assert Draft(Device(), context=100, vocab_size=20)(np.array([1]), 3).tolist() == [3, 5, 7]


class Form:
    def __init__(self, tokens):
        self.tokens = tokens

    def forced(self, ids):
        return self.tokens


def test_as_many_forced_tokens_as_a_run_may_have():
    """A run has 2, 4, 8 or 12 tokens."""
    ids = np.array([1, 2])
    for forced, count, expected in (
        (1, 12, 0), (2, 12, 2), (3, 12, 2), (4, 12, 4), (7, 12, 4), (8, 12, 8), (11, 12, 8), (12, 12, 12), (30, 12, 12),
        (30, 11, 8), (30, 3, 2), (30, 2, 2), (30, 1, 0), (0, 12, 0),
    ):  # fmt: skip
        found = ForcedTokens(Form(list(range(50, 50 + forced))), None)(ids, count)
        assert (found.dtype, found.tolist()) == (np.int64, list(range(50, 50 + expected))), (forced, count)


def test_others_propose_where_too_little_is_forced():
    ids, asked = np.array([1, 2]), []

    def otherwise(ids, count):
        asked.append((ids.tolist(), count))
        return np.array([7, 8])

    assert ForcedTokens(Form([5]), otherwise)(ids, 4).tolist() == [7, 8]
    assert asked == [([1, 2], 4)]
    assert ForcedTokens(Form([5, 6]), otherwise)(ids, 4).tolist() == [5, 6]
    assert len(asked) == 1
