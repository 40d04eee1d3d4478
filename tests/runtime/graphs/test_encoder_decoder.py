"""Rows that descend from sources, on a stand-in for the model: no row gets another's text or another's source."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.helpers.fake_memory import CACHE, FakeMemory, logits_of, manifest_of
from triform.runtime.errors import InputError
from triform.runtime.graphs.encoder_decoder import SourceBatchStep


class Sources:
    """A `SourceSession` that has numbers for sources."""

    def __init__(self, count):
        self.sources, self.kept = list(range(10, 10 + count)), []

    def keep(self, sources):
        self.kept.append(list(sources))
        self.sources = [self.sources[index] for index in sources]


def make(count, max_length=30):
    session = Sources(count)
    memory = FakeMemory(session)
    return SourceBatchStep(session, memory, manifest_of(max_length), CACHE), session, memory


def test_starts_of_different_lengths():
    step, _, memory = make(3)
    rows = [[1], [2, 3, 4], [5, 6]]
    found = step.prefill(rows)
    np.testing.assert_array_equal(found, [logits_of(row, 10 + place) for place, row in enumerate(rows)])
    assert memory.ran == [(3, 3)]
    np.testing.assert_array_equal(step.next([7, 8, 9], [0, 1, 2]), [
        logits_of([*row, token], 10 + place) for place, (row, token) in enumerate(zip(rows, (7, 8, 9), strict=True))
    ])  # fmt: skip


def test_logits_after_chosen_tokens():
    step, _, _ = make(2)
    rows = [[1, 2, 3], [4, 5]]
    found = step.prefill_at(rows, np.array([[0, 2], [1, 0]]))
    np.testing.assert_array_equal(found, [
        [logits_of([1], 10), logits_of([1, 2, 3], 10)], [logits_of([4, 5], 11), logits_of([4], 11)],
    ])  # fmt: skip


def test_the_likeliest_tokens():
    step, _, _ = make(2)
    step.wanted = 1
    assert [row.best for row in step.prefill([[1], [2]])] == [logits_of([1], 10).argmax(), logits_of([2], 11).argmax()]
    found = step.next([3, 4, 5], [0, 0, 1])
    texts = (([1, 3], 10), ([1, 4], 10), ([2, 5], 11))
    assert [row.best for row in found] == [logits_of(*text).argmax() for text in texts]


def test_as_many_rows_for_each_source_as_any_has():
    step, session, memory = make(3)
    step.prefill([[1], [2], [3]])
    step.next([4, 5, 6, 7], [0, 0, 0, 2])
    # Two of three sources are left: all three are kept.
    assert memory.ran[-1] == (9, 1) and session.kept == []
    found = step.next([8], [3])
    # One of three: it alone.
    assert session.kept == [[2]] and memory.ran[-1] == (1, 1)
    np.testing.assert_array_equal(found, [logits_of([3, 7, 8], 12)])


@pytest.mark.parametrize(("live", "kept"), [([0, 1], [[0, 1]]), ([1, 3], [[1, 3]]), ([0, 1, 2], []), ([2], [[2]])])
def test_sources_are_left_out_when_half_of_four_have_no_rows(live, kept):
    step, session, _ = make(4)
    step.prefill([[place] for place in range(4)])
    found = step.next([5] * len(live), live)
    np.testing.assert_array_equal(found, [logits_of([place, 5], 10 + place) for place in live])
    assert session.kept == kept


@pytest.mark.parametrize("seed", range(8))
def test_a_walk(seed):
    """Beams that multiply, end and change their order within their source."""
    chance = random.Random(seed)
    count = chance.randrange(1, 6)
    step, _, _ = make(count)
    texts = [([chance.randrange(5) for _ in range(chance.randrange(1, 4))], 10 + place) for place in range(count)]
    found = step.prefill([text for text, _ in texts])
    for _ in range(12):
        np.testing.assert_array_equal(found, [logits_of(*text) for text in texts])
        parents = [
            parent
            for source in sorted({source for _, source in texts})
            for parent in chance.choices(
                [i for i, text in enumerate(texts) if text[1] == source], k=chance.randrange(0, 4)
            )
        ] or [0]
        tokens = [chance.randrange(5) for _ in parents]
        found = step.next(tokens, parents)
        texts = [([*texts[parent][0], token], texts[parent][1]) for parent, token in zip(parents, tokens, strict=True)]
    # It begins again with as many sources as are left.
    sources = step._session.sources
    np.testing.assert_array_equal(step.prefill([[1]] * len(sources)), [logits_of([1], source) for source in sources])


def test_the_end_of_the_context():
    step, _, _ = make(1, max_length=2)
    step.prefill([[1]])
    step.next([2], [0])
    with pytest.raises(InputError):
        step.next([3], [0])
    with pytest.raises(InputError):
        step.prefill([[1, 2, 3]])
