"""Continuations of one text on a stand-in for the model: each row has its own token behind the row it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.fake_memory import CACHE, FakeMemory, logits_of, manifest_of, states_of
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.graphs.decoding import branches as module
from triform.runtime.graphs.decoding.branches import HiddenStep


@pytest.fixture
def memory(monkeypatch):
    memory = FakeMemory()
    monkeypatch.setattr(module, "memory_of", lambda session, cache, vocab_size: memory)
    monkeypatch.setattr(module, "CHUNK", 4)
    return memory


@pytest.mark.parametrize("length", [1, 4, 5, 9])
def test_hidden_states_of_a_prompt(memory, length):
    ids = [token % 6 for token in range(length)]
    logits, states = HiddenStep(None, manifest_of(20), CACHE, 3).prefill(ids)
    np.testing.assert_array_equal(logits, logits_of(ids))
    np.testing.assert_array_equal(states, [states_of(ids[: place + 1]) for place in range(length)])
    assert memory.ran == [(1, min(4, length - start)) for start in range(0, length, 4)]


def test_tokens_that_are_tried(memory):
    step = HiddenStep(None, manifest_of(20), CACHE, 3)
    step.prefill([1, 2])
    logits, states = step.branch([3, 4, 5], 0)
    np.testing.assert_array_equal(logits, [logits_of([1, 2, token]) for token in (3, 4, 5)])
    np.testing.assert_array_equal(states, [states_of([1, 2, token]) for token in (3, 4, 5)])
    # Rows come in pairs, and will come again.
    assert memory.ran[-1] == (4, 1) and memory.repeated == [(4, 1)]
    logits, states = step.branch(np.array([6, 7]), 1)
    np.testing.assert_array_equal(logits, [logits_of([1, 2, 4, token]) for token in (6, 7)])
    np.testing.assert_array_equal(states, [states_of([1, 2, 4, token]) for token in (6, 7)])
    assert memory.ran[-1] == (2, 1)
    # A new text begins without what was there.
    np.testing.assert_array_equal(step.prefill([8])[0], logits_of([8]))
    np.testing.assert_array_equal(step.branch([9], 0)[0], [logits_of([8, 9])])


def test_the_end_of_the_context(memory):
    step = HiddenStep(None, manifest_of(3), CACHE, 2)
    step.prefill([1, 2])
    step.branch([3, 4], 0)
    with pytest.raises(InputError):
        step.branch([5], 0)
    with pytest.raises(InputError):
        step.prefill([1, 2, 3, 4])


def test_a_graph_without_hidden_states(memory):
    manifest = manifest_of(20)
    manifest.graphs["decoder"].outputs.clear()
    with pytest.raises(UnsupportedError, match=r"^this bundle does not give hidden states: export the model with"):
        HiddenStep(None, manifest, CACHE, 2)
