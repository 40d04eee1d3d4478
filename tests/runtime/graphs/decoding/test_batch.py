"""Rows on a stand-in for the model: which are read together, what is taken from others, and what each row gets."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.fake_memory import CACHE, STATES, VOCABULARY, FakeMemory, logits_of, manifest_of
from triform.runtime.errors import InputError
from triform.runtime.graphs.decoding import batch as module
from triform.runtime.graphs.decoding import prompts
from triform.runtime.graphs.decoding.batch import DecoderBatchStep


@pytest.fixture
def make(monkeypatch):
    def make(*, together=0, rows=1, max_length=40, graphs=None, cache=CACHE):
        memory = FakeMemory(together=together, cache=cache)
        monkeypatch.setattr(module, "memory_of", lambda session, cache, vocab_size: memory)
        return DecoderBatchStep(None, manifest_of(max_length), cache, rows, graphs), memory

    return make


def check(found, texts):
    assert np.shape(found) == (len(texts), VOCABULARY)
    np.testing.assert_array_equal(found, np.reshape([logits_of(text) for text in texts], np.shape(found)))


def tokens(length, first=1):
    """No two prompts with other first tokens share a beginning."""
    return [first, *(token % 7 for token in range(length - 1))]


@pytest.mark.parametrize("together", [0, 100])
def test_rows_join_branch_and_leave(make, together):
    step, memory = make(together=together)
    texts = [[1, 2, 3], [4, 5], [6]]
    check(step.prefill(texts), texts)
    check(step.next([7, 8, 9], [2, 0, 0]), [[6, 7], [1, 2, 3, 8], [1, 2, 3, 9]])
    # Rows come in pairs, and will come again.
    assert memory.ran[-1] == (4, 1) and memory.repeated == [(4, 1)]
    check(step.join([[2, 2]]), [[2, 2]])
    check(step.next([5, 5], [3, 1]), [[2, 2, 5], [1, 2, 3, 8, 5]])
    assert memory.ran[-1] == (2, 1)
    check(step.join([]), [])
    check(step.next([6], [1]), [[1, 2, 3, 8, 5, 6]])
    assert memory.ran[-1] == (2, 1)


@pytest.mark.parametrize(
    ("lengths", "together", "runs"),
    [
        ((3, 3), 0, [(1, 3), (1, 3)]), ((3, 3), 6, [(2, 3)]), ((3, 3), 5, [(1, 3), (1, 3)]),
        ((4, 2), 100, [(2, 4)]), ((1, 3, 3), 100, [(3, 3)]), ((5, 1), 100, [(2, 5)]),
        ((9, 1, 1), 100, [(2, 9), (1, 1)]),
        # Two thirds of three rows would be padding.
        ((8, 1, 1), 100, [(2, 8), (1, 1)]),
        ((5, 1, 1), 100, [(2, 5), (1, 1)]), ((4, 1, 1), 100, [(3, 4)]),
        ((1, 1, 9), 100, [(2, 1), (1, 4), (1, 4), (1, 1)]),
        ((3, 3, 3), 6, [(2, 3), (1, 3)]), ((3,), 100, [(1, 3)]), ((7,), 100, [(1, 4), (1, 3)]),
    ],
)  # fmt: skip
def test_which_are_read_together(make, lengths, together, runs):
    """At most as many tokens as the memory takes, padding included, which is no more than half of them."""
    step, memory = make(together=together, rows=len(lengths))
    texts = [tokens(length, first) for first, length in enumerate(lengths)]
    check(step.prefill(texts), texts)
    assert memory.ran == runs


@pytest.mark.parametrize("together", [0, 100])
def test_a_beginning_that_another_row_has_is_not_run_again(make, together):
    step, memory = make(together=together, rows=3)
    step.prefill([[1, 2, 3, 4, 5, 6]])
    memory.ran.clear()
    texts = [[1, 2, 3, 4, 9, 9], [1, 2, 3, 4, 9, 9, 9]]
    check(step.join(texts), texts)
    # Two tokens of the one and three of the other are new.
    assert [rows for rows, _ in memory.ran] == [1, 1] and [count for _, count in memory.ran] == [2, 3]


def test_of_prompts_that_share_half_the_second_is_read_behind_the_first(make):
    """No more than half of it can be copied: read together."""
    for length, shared, runs in (
        (10, 4, [(2, 10)]), (10, 6, [(1, 4), (1, 4), (1, 2), (1, 4)]),
        (8, 4, [(2, 8)]), (8, 6, [(1, 4), (1, 4), (1, 2)]),
    ):  # fmt: skip
        step, memory = make(together=100, rows=2)
        texts = [[0] * shared + [1] * (length - shared), [0] * shared + [2] * (length - shared)]
        check(step.prefill(texts), texts)
        assert memory.ran == runs


def test_a_prompt_of_a_row_that_left_is_still_known(make):
    step, memory = make(rows=2)
    step.prefill([[7, 7], [1, 2, 3, 4, 5, 6]])
    step.select([0])
    memory.ran.clear()
    texts = [[1, 2, 3, 4, 8, 8]]
    check(step.join(texts), texts)
    assert memory.ran == [(1, 2)]


def test_what_the_idle_row_had_is_not_known_any_more(make):
    """A step of one row writes into the second, too."""
    step, memory = make(rows=2)
    step.prefill([[7, 7], [1, 2, 3, 4, 5, 6]])
    step.next([1], [0])
    memory.ran.clear()
    texts = [[1, 2, 3, 4, 8, 8]]
    check(step.join(texts), texts)
    assert [count for _, count in memory.ran] == [4, 2]


def test_states_where_prompts_part(make):
    """Of the third prompt with the same 16 tokens only the others are read; the first row's states are no other's."""
    step, memory = make(rows=3, cache=STATES)
    texts = [[token % 5 for token in range(16)] + [last] * 4 for last in (6, 7, 8)]
    for text, count in zip(texts, (20, 20, 4), strict=True):
        memory.ran.clear()
        check(step.join([text]), [text])
        assert sum(count for _, count in memory.ran) == count
    check(step.next([1, 2, 3], [0, 1, 2]), [[*text, token] for text, token in zip(texts, (1, 2, 3), strict=True)])
    # After the prompts of rows that left, a new one begins without any states.
    check(step.prefill([[9, 9]]), [[9, 9]])


@pytest.mark.parametrize(("together", "cache"), [(0, CACHE), (12, CACHE), (100, CACHE), (0, STATES), (100, STATES)])
@pytest.mark.parametrize("seed", range(4))
def test_a_walk(make, seed, together, cache):
    """Whatever joins, branches, leaves and returns, each row's logits are those of its whole text."""
    chance, (step, _) = random.Random(seed), make(together=together, rows=seed % 3 + 1, cache=cache)
    texts = []
    for _ in range(60):
        way = chance.choice(("join", "next", "next", "select", "prefill"))
        if way in ("join", "prefill") or not texts:
            known = [[], *texts]
            new = [
                chance.choice(known)[: chance.randrange(9)] + chance.choices(range(4), k=chance.randrange(1, 5))
                for _ in range(chance.randrange(1, 4))
            ]
            check(step.prefill(new) if way == "prefill" else step.join(new), new)
            texts = new if way == "prefill" else texts + new
        elif way == "select":
            parents = chance.choices(range(len(texts)), k=chance.randrange(0, 4))
            step.select(parents)
            texts = [texts[parent] for parent in parents]
        else:
            parents = chance.choices(range(len(texts)), k=chance.randrange(1, 5))
            new = chance.choices(range(4), k=len(parents))
            texts = [[*texts[parent], token] for parent, token in zip(parents, new, strict=True)]
            check(step.next(new, parents), texts)
        texts = texts[:6]
        if any(len(text) > 30 for text in texts):
            texts = []
        step.select(range(len(texts)))


def test_the_likeliest_tokens(make):
    step, _ = make(rows=2)
    step.wanted = 1
    assert [row.best for row in step.prefill([[1], [2, 3]])] == [logits_of([1]).argmax(), logits_of([2, 3]).argmax()]
    found = step.next([4, 5], [1, 0])
    assert [row.best for row in found] == [logits_of([2, 3, 4]).argmax(), logits_of([1, 5]).argmax()]


def test_the_end_of_the_context(make):
    step, _ = make(max_length=3)
    step.prefill([[1, 2], [3]])
    step.next([4], [0])
    with pytest.raises(InputError):
        step.next([5], [0])
    with pytest.raises(InputError):
        step.join([[1, 2, 3, 4]])


def test_what_another_graph_read_is_read_again(make, monkeypatch):
    """Of prompts of six tokens and more, which a graph of their own reads; not a single token is taken over."""
    monkeypatch.setattr(prompts, "LONG", 6)
    step, memory = make(rows=6, graphs=prompts.PromptGraphs(SimpleNamespace))
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    for length, runs in ((5, [4, 1]), (6, [4, 2]), (8, [2]), (4, [2]), (5, [3]), (7, [3])):
        memory.ran.clear()
        check(step.join([text[:length]]), [text[:length]])
        assert [count for _, count in memory.ran] == runs, length


def test_more_rows_than_the_context_has_tokens(make):
    step, _ = make(max_length=3)
    texts = [[first] for first in range(7)]
    check(step.prefill(texts), texts)
    check(step.next(range(7), range(7)), [[first, first] for first in range(7)])
    check(step.join([[9, 9, 9]]), [[9, 9, 9]])
