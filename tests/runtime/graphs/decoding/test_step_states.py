"""A sequence whose text is in a state of fixed size: where it is read again from, and that it is read as a whole."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.helpers.fake_memory import STATES, FakeMemory, logits_of, manifest_of
from triform.runtime.errors import TriformError
from triform.runtime.graphs.decoding.step import DecoderStep


@pytest.fixture
def memory():
    return FakeMemory(cache=STATES)


def make(memory, max_length=60):
    return DecoderStep(None, manifest_of(max_length), STATES, memory)


def read(step, memory, ids):
    """Read a prompt; how many tokens each run had."""
    memory.ran.clear()
    np.testing.assert_array_equal(step.prefill(ids), logits_of(ids))
    assert step.ids == list(ids)
    return [count for _, count in memory.ran]


def test_a_text_that_goes_on_is_not_read_again(memory):
    step = make(memory)
    assert step.shared([1, 2, 3]) == 0
    assert read(step, memory, [1, 2, 3]) == [3]
    np.testing.assert_array_equal(step.next(4), logits_of([1, 2, 3, 4]))
    assert step.shared([1, 2, 3, 4, 5]) == 4 and step.shared([1, 2, 3, 4, 5, 6]) == 4
    assert read(step, memory, [1, 2, 3, 4, 5]) == [1]


def test_the_same_prompt_again_is_read_from_two_tokens_before_its_end(memory):
    step, text = make(memory), [1, 2, 3, 4, 5, 6]
    # The states are kept there.
    assert read(step, memory, text) == [4, 2]
    for _ in range(2):
        assert step.shared(text) == 4 and read(step, memory, text) == [2]
    # Of an odd number of tokens, three are read again.
    assert read(step, memory, [*text, 7]) == [1]
    assert read(step, memory, [*text, 7]) == [3]
    step.reset()
    assert step.shared(text) == 0 and step.ids == [] and read(step, memory, text) == [4, 2]


@pytest.mark.parametrize(("shared", "kept"), [(16, 16), (14, 0)])
def test_where_two_prompts_part_a_third_goes_on(memory, shared, kept):
    """The states there are kept if that spares a run of 16 tokens and more."""
    step, beginning = make(memory), [token % 5 for token in range(shared)]
    read(step, memory, [*beginning, *[7] * 6])
    assert step.shared([*beginning, *[8] * 6]) == 0
    assert sum(read(step, memory, [*beginning, *[8] * 6])) == shared + 6
    assert step.shared([*beginning, 6, 6, 6]) == kept
    assert sum(read(step, memory, [*beginning, 6, 6, 6])) == shared + 3 - kept


def test_a_run_that_fails_leaves_nothing(memory, monkeypatch):
    """Its states may have changed by half."""
    step = make(memory)
    read(step, memory, [1, 2, 3, 4])
    with monkeypatch.context() as patch:
        patch.setattr("tests.helpers.fake_memory.logits_of", lambda ids, source: 1 / 0)
        with pytest.raises(TriformError):
            step.next(5)
    assert step.ids == [] and step.shared([1, 2, 3, 4, 5]) == 0
    np.testing.assert_array_equal(step.prefill([1, 2, 5]), logits_of([1, 2, 5]))


def test_what_is_stored_is_adopted(memory):
    step = make(memory)
    read(step, memory, [1, 2, 3, 4, 5, 6])
    step.next(7)
    # Only where the states are known, before the last two tokens of the prompt.
    assert step.stored(3) == ([], {})
    ids, arrays = step.stored(7)
    assert ids == [1, 2, 3, 4] and list(arrays) == ["states.0"]
    other = make(memory)
    other.adopt(ids, {name: array.copy() for name, array in arrays.items()})
    assert other.ids == ids
    # It can be stored again.
    assert other.stored(4)[0] == ids
    assert read(other, memory, [1, 2, 3, 4, 9]) == [1]
    short = make(memory)
    read(short, memory, [1, 2])
    assert short.stored(2)[0] == [1, 2]


@pytest.mark.parametrize("seed", range(6))
def test_a_walk(memory, seed):
    """Whatever came before, logits are those of the whole text."""
    chance, step, known = random.Random(seed), make(memory), [[]]
    for _ in range(60):
        text = step.ids.copy()
        if text and len(text) < 50 and chance.random() < 0.5:
            new = chance.choices(range(4), k=chance.choice((1, 1, 3)))
            found = step.next(new[0]) if len(new) == 1 else step.extend(new)[-1]
            text += new
        else:
            text = chance.choice(known)[: chance.randrange(45)] + chance.choices(range(4), k=chance.randrange(1, 6))
            shared = step.shared(text)
            memory.ran.clear()
            found = step.prefill(text)
            assert sum(count for _, count in memory.ran) == len(text) - shared
            known = [*known, text][-5:]
        np.testing.assert_array_equal(found, logits_of(text))
        assert step.ids == text
