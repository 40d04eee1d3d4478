"""A sequence on a stand-in for the model: which tokens are run again, in which chunks, and what comes of them."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.fake_memory import CACHE, VOCABULARY, FakeMemory, logits_of, manifest_of
from triform.runtime.errors import BundleError, InputError
from triform.runtime.graphs.decoding import prompts
from triform.runtime.graphs.decoding import step as module
from triform.runtime.graphs.decoding.step import DecoderStep, paired, resumable


@pytest.fixture
def memory():
    return FakeMemory()


def make(memory, max_length=40, graphs=None):
    return DecoderStep(None, manifest_of(max_length), CACHE, memory, graphs)


@pytest.mark.parametrize(
    ("held", "ids", "kept"),
    [
        ([], [1], 0), ([1, 2], [1, 2], 0), ([1, 2, 3], [1, 2, 3], 0), ([1, 2, 3, 4], [1, 2, 3, 4], 2),
        ([1, 2], [1, 2, 3, 4], 2), ([1, 2, 3], [1, 2, 3, 4, 5], 2), ([1, 2, 3, 4], [1, 2, 3, 4, 5], 2),
        ([1, 2, 3, 4], [1, 2, 3, 4, 5, 6], 4), ([1, 2, 3, 4], [1, 2, 9, 4, 5, 6], 2), ([9, 2, 3, 4], [1, 2, 3, 4], 0),
        ([1, 9, 3, 4], [1, 2, 3, 4], 0), ([1, 2, 3, 9], [1, 2, 3, 4, 5, 6], 2), ([1, 2, 3, 4, 5, 6], [1, 2, 3], 0),
        ([1, 2, 3], [1], 0), ([1, 2, 3], [], 0),
    ],
)  # fmt: skip
def test_what_need_not_be_run_again(held, ids, kept):
    """An even number of tokens, and two at least are run."""
    assert resumable(held, ids) == kept


def test_rows_in_pairs():
    assert [paired(rows) for rows in range(6)] == [0, 2, 2, 4, 4, 6]


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9])
def test_a_prompt_in_chunks_of_four(memory, length):
    ids = list(range(length))
    np.testing.assert_array_equal(make(memory).prefill(ids), logits_of(ids))
    assert memory.ran == [(1, min(4, length - start)) for start in range(0, length, 4)]


def test_texts_that_share_a_beginning(memory):
    step = make(memory)
    step.prefill([1, 2, 3, 4, 5])
    memory.ran.clear()
    assert step.shared([1, 2, 3, 4, 6, 7]) == 4
    np.testing.assert_array_equal(step.prefill([1, 2, 3, 4, 6, 7]), logits_of([1, 2, 3, 4, 6, 7]))
    assert memory.ran == [(1, 2)] and step.ids == [1, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(step.prefill([1, 2, 9]), logits_of([1, 2, 9]))
    # By two tokens at least: the first three are an odd number, and one would be left.
    assert memory.ran[1:] == [(1, 3)]
    step.reset()
    assert step.shared([1, 2, 3, 4]) == 0 and step.ids == []


def test_tokens_one_by_one_and_several(memory):
    step = make(memory)
    step.prefill([1, 2])
    np.testing.assert_array_equal(step.next(3), logits_of([1, 2, 3]))
    found = step.extend([4, 5, 6]).copy()
    np.testing.assert_array_equal(found, [logits_of([1, 2, 3, 4]), logits_of([1, 2, 3, 4, 5]), logits_of(range(1, 7))])
    assert step.ids == [1, 2, 3, 4, 5, 6] and memory.ran == [(1, 2), (1, 1), (1, 3)]
    # A prompt's run is not repeated, those of so many tokens are.
    assert memory.repeated == [(1, 1), (1, 3)]
    step.trim(2)
    assert step.ids == [1, 2, 3, 4]
    np.testing.assert_array_equal(step.next(9), logits_of([1, 2, 3, 4, 9]))
    step.wanted = 1
    assert step.next(8).best == int(logits_of([1, 2, 3, 4, 9, 8]).argmax())


def test_the_end_of_the_context(memory):
    step = make(memory, max_length=6)
    step.prefill([1, 2, 3, 4])
    assert step.room == 2
    step.extend([5, 6])
    assert step.room == 0
    with pytest.raises(InputError):
        step.next(7)
    assert step.ids == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InputError):
        make(memory, max_length=6).prefill(range(7))


@pytest.mark.parametrize("seed", range(5))
def test_a_walk(memory, seed):
    """Whatever came before, logits are those of the whole text."""
    chance, step, text = random.Random(seed), make(memory), []
    for _ in range(60):
        way = chance.choice(("prefill", "next", "extend", "trim")) if text and len(text) < 34 else "prefill"
        if way == "prefill":
            text = text[: chance.randrange(len(text) + 1)][:20] + chance.choices(range(5), k=chance.randrange(1, 6))
            found = step.prefill(text)
        elif way == "trim":
            count = chance.randrange(len(text))
            step.trim(count)
            text = text[: len(text) - count]
            continue
        else:
            new = chance.choices(range(5), k=1 if way == "next" else 3)
            text += new
            found = step.next(new[0]) if way == "next" else step.extend(new)[-1]
        np.testing.assert_array_equal(found, logits_of(text))
        assert step.ids == text


def test_what_is_stored_is_adopted(memory):
    step = make(memory)
    step.prefill([1, 2, 3, 4, 5])
    ids, arrays = step.stored(3)
    assert ids == [1, 2, 3] and {name: array.shape for name, array in arrays.items()} == {
        "0.key": (1, 3, 1), "0.value": (1, 3, 1),
    }  # fmt: skip
    assert step.stored(9)[0] == [1, 2, 3, 4, 5]
    arrays = {name: array.copy() for name, array in arrays.items()}
    other = make(memory)
    other.adopt(ids, arrays)
    memory.ran.clear()
    np.testing.assert_array_equal(other.prefill([1, 2, 7, 8]), logits_of([1, 2, 7, 8]))
    assert memory.ran == [(1, 2)]


@pytest.mark.parametrize(("most", "size"), [(20 * VOCABULARY, 20), (17 * VOCABULARY - 1, 16), (1, 16), (2**23, 32)])
def test_logits_of_all_tokens_a_few_at_a_time(memory, monkeypatch, most, size):
    """At least 16 at once, and at most as many as a chunk or as the memory is for."""
    monkeypatch.setattr(module, "_LOGITS", most)
    monkeypatch.setattr(module, "CHUNK", 32)
    step = make(memory)
    step.prefill([5, 6])
    memory.ran.clear()
    ids = [token % 7 for token in range(37)]
    found = list(step.logits_in_chunks(ids))
    assert [len(part) for part in found] == [min(size, 37 - start) for start in range(0, 37, size)]
    expected = [logits_of([5, 6, *ids[: place + 1]]) for place in range(37)]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert step.ids == [5, 6, *ids]


def test_logits_that_are_no_numbers(memory, monkeypatch):
    monkeypatch.setattr(
        "tests.helpers.fake_memory.logits_of", lambda ids, source: np.full(VOCABULARY, np.inf, np.float32)
    )
    with pytest.raises(BundleError):
        list(make(memory).logits_in_chunks([1, 2]))


def test_what_another_graph_read_is_read_again(memory, monkeypatch):
    """Of prompts of six tokens and more, which a graph of their own reads."""
    monkeypatch.setattr(prompts, "LONG", 6)
    step = make(memory, graphs=prompts.PromptGraphs(SimpleNamespace))
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    for length, kept in ((5, 0), (6, 0), (8, 6), (4, 0), (5, 2), (7, 0)):
        assert step.shared(text[:length]) == kept
        memory.ran.clear()
        np.testing.assert_array_equal(step.prefill(text[:length]), logits_of(text[:length]))
        assert sum(count for _, count in memory.ran) == length - kept
        assert step.ids == text[:length]
