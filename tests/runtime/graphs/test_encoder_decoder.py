"""Rows that descend from sources, on a stand-in for the model: no row gets another's text or another's source."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.fake_memory import CACHE, FakeMemory, attention_of, logits_of, manifest_of
from triform.runtime.errors import InputError
from triform.runtime.graphs import encoder_decoder as module
from triform.runtime.graphs.encoder_decoder import SourceBatchStep, SourceReader
from triform.runtime.graphs.encoder_output import HostEncoderOutput


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


@pytest.mark.parametrize(
    ("count", "live", "kept"),
    [(1, [0], []), (2, [1], [[1]]), (2, [0, 1], []), (6, [0, 2, 5], [[0, 2, 5]]), (6, [0, 1, 2, 5], [])],
)
def test_sources_are_left_out_when_half_have_no_rows(count, live, kept):
    step, session, _ = make(count)
    step.prefill([[place] for place in range(count)])
    for token in (5, 6):
        step.next([token] * len(live), live if token == 5 else range(len(live)))
    assert session.kept == kept


class Graph:
    """A graph that has inputs and outputs of these names."""

    def __init__(self, inputs=(), outputs=()):
        self._inputs, self._outputs = ([SimpleNamespace(name=name) for name in names] for names in (inputs, outputs))

    def get_inputs(self):
        return self._inputs

    def get_outputs(self):
        return self._outputs


def reader_of(monkeypatch, manifest, outputs=("logits", "cross_attentions")):
    memory = FakeMemory()
    monkeypatch.setattr(module, "memory_of", lambda session, cache, vocab_size: memory)
    return SourceReader(Graph(), Graph(outputs=outputs), manifest, CACHE), memory


def test_what_a_decoder_reads_of_a_source(monkeypatch):
    """Of three heads, at each of five positions, after each of four tokens that are given."""
    manifest = manifest_of(4)
    manifest.encoder_decoder = SimpleNamespace(speech=SimpleNamespace(alignment_heads=[[0, 1], [2, 0], [2, 1]]))
    reader, memory = reader_of(monkeypatch, manifest)
    encoded = HostEncoderOutput({"mask": np.ones((1, 9)), "0.key": np.zeros((1, 2, 5, 7))})
    ids = [3, 1, 4, 2]
    assert reader.attends
    logits, weights = reader.attend(encoded, ids)
    np.testing.assert_array_equal(logits, [logits_of(ids[: end + 1]) for end in range(4)])
    expected = np.stack([attention_of(ids[: end + 1], 3, 5) for end in range(4)], axis=1)
    np.testing.assert_array_equal(weights, expected)
    assert memory.ran == [(1, 4)]
    with pytest.raises(InputError):
        reader.attend(encoded, [*ids, 5])


def test_graphs_without_cross_attention(monkeypatch):
    assert not reader_of(monkeypatch, manifest_of(4), ("logits", "present.0.key"))[0].attends


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
