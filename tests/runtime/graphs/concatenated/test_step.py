"""A step on a small graph that concatenates, whose results are sums of tokens."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.helpers.summing_graph import HEADS, WEIGHTS, WIDTH, summing_graph
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.graphs.concatenated.buffers import ConcatenatedBuffers, WorkingArrays
from triform.runtime.graphs.concatenated.step import ConcatenatedStep


class Counted:
    """A session that remembers the shapes of what it runs on."""

    def __init__(self):
        graph = summing_graph().SerializeToString()
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.runs = []

    def io_binding(self):
        return self._session.io_binding()

    def run_with_iobinding(self, binding):
        self._session.run_with_iobinding(binding)
        self.runs.append(tuple(binding.get_outputs()[1].shape()))


@pytest.fixture
def session():
    return Counted()


class Texts:
    """Rows of tokens, and what their sums are."""

    def __init__(self, rows, capacity=9, **info):
        self.info = CacheInfo("float32", [LayerCacheInfo(HEADS, WIDTH)], growth="concatenated", **info)
        self.working = WorkingArrays()
        self.buffers = ConcatenatedBuffers(self.info, self.working)
        self.buffers.grow(rows, capacity, 0, 0)
        self.texts = [[] for _ in range(rows)]

    def step(self, session, tokens, positions):
        """Run new tokens of each row, and compare everything with what arithmetic says."""
        rows, sequence = np.shape(tokens)
        step = ConcatenatedStep(self.working, self.info, (rows, sequence), np.shape(positions)[1], 2)
        self.buffers.bind(step, rows)
        step.input_ids[:] = tokens
        step.past_lengths[:] = [len(text) for text in self.texts[:rows]]
        step.logits_positions[:] = positions
        assert (step.new_lengths == sequence).all() and step.new_lengths.dtype == np.int32
        before = list(map(len, self.texts))
        step.run(session)
        for row, new in enumerate(np.asarray(tokens).tolist()):
            if before[row] or not any(before):
                self.texts[row] += new
                sums = [21 * 3 * sum(self.texts[row][: before[row] + place + 1]) for place in positions[row]]
                # One by one the tokens come at lengths of their own.
                starts = [before[row] + (place if self.info.single else 0) for place in positions[row]]
                np.testing.assert_array_equal(step.logits[row], np.stack([sums, starts], -1))
        self.check_cache()
        assert step.scores(1) is step.logits is step.outputs["logits"]
        return step

    def check_cache(self):
        for row, text in enumerate(self.texts):
            read = self.buffers.view(row).read(len(text))
            keys = np.array(text, np.float32).reshape(1, -1, 1) * WEIGHTS[0]
            np.testing.assert_array_equal(read["0.key"], keys)
            np.testing.assert_array_equal(read["0.value"], 2 * keys)


def test_a_prompt_and_tokens_after_it(session):
    texts = Texts(2)
    texts.step(session, [[1, 2, 3], [4, 5, 6]], [[0, 2], [1, 2]])
    texts.step(session, [[7], [8]], [[0], [0]])
    texts.step(session, [[9], [10]], [[0], [0]])
    assert session.runs == [(2, HEADS, 3, WIDTH), (2, HEADS, 4, WIDTH), (2, HEADS, 5, WIDTH)]


def test_rows_of_different_lengths_stand_at_the_end(session):
    texts = Texts(3)
    for row, prompt in enumerate(([1, 2, 3, 4], [5], [6, 7])):
        texts.texts[row] = list(prompt)
        keys = np.array(prompt, np.float32).reshape(1, -1, 1) * WEIGHTS[0]
        texts.buffers.view(row).write({"0.key": keys, "0.value": 2 * keys}, len(prompt))
    texts.step(session, [[8, 9], [10, 11], [12, 13]], [[1], [0], [1]])
    texts.step(session, [[14], [15], [16]], [[0], [0], [0]])
    # What the last run wrote has other lengths than another batch has: the buffers are read again.
    texts.texts[0] = texts.texts[0][:2]
    texts.step(session, [[17], [18], [19]], [[0], [0], [0]])
    assert [shape[2] for shape in session.runs] == [6, 7, 6]


def test_a_graph_without_a_place_for_padding_runs_each_length_apart(session):
    texts = Texts(4, uneven=False)
    for row, prompt in enumerate(([1, 2], [3], [], [4, 5])):
        texts.texts[row] = list(prompt)
        keys = np.array(prompt, np.float32).reshape(1, -1, 1) * WEIGHTS[0]
        texts.buffers.view(row).write({"0.key": keys, "0.value": 2 * keys}, len(prompt))
    # The row without tokens waits for a text, and is not run.
    texts.step(session, [[6], [7], [8], [9]], [[0], [0], [0], [0]])
    assert session.runs == [(1, HEADS, 2, WIDTH), (2, HEADS, 3, WIDTH)]
    assert texts.texts[2] == []


def test_prompts_of_one_length_are_run_together(session):
    texts = Texts(2, uneven=False)
    texts.step(session, [[1, 2], [3, 4]], [[0, 1], [1, 1]])
    texts.step(session, [[5], [6]], [[0], [0]])
    assert [shape[0] for shape in session.runs] == [2, 2]
    # There is room for as many tokens as the buffers have, so that the next steps need no more.
    assert [len(piece) for piece in texts.working.flat["past_key_values.0.key"]] == [2 * HEADS * 9 * WIDTH] * 2


def test_a_graph_that_takes_one_token_in_a_run(session):
    texts = Texts(2, single=True)
    texts.step(session, [[1, 2, 3], [4, 5, 6]], [[0, 2], [1, 2]])
    texts.step(session, [[7], [8]], [[0], [0]])
    assert session.runs == [(2, HEADS, length, WIDTH) for length in (1, 2, 3, 4)]


def test_what_the_last_run_wrote_is_read_where_it_is(session):
    """The keys and values of each run are those that the next one reads, without a copy of the buffers."""
    texts = Texts(2)
    texts.step(session, [[1], [2]], [[0], [0]])
    # Not seen: the buffers are not read.
    texts.buffers.view(0).read(1)["0.key"][...] = 99
    step = ConcatenatedStep(texts.working, texts.info, (2, 1), 1, 2)
    texts.buffers.bind(step, 2)
    step.input_ids[:], step.past_lengths[:] = [[3], [4]], [1, 1]
    step.run(session)
    np.testing.assert_array_equal(step.logits[:, 0], [[63 * 4, 1], [63 * 6, 1]])
    # One row alone is not what was written for two.
    step = ConcatenatedStep(texts.working, texts.info, (1, 1), 1, 2)
    texts.buffers.bind(step, 1)
    step.input_ids[:], step.past_lengths[:] = [[5]], [2]
    step.run(session)
    # 6 heads' numbers of 99, and the values of 1, which are twice 21.
    np.testing.assert_array_equal(step.logits[:, 0], [[6 * 99 + 42 + 63 * 3 + 63 * 5, 2]])


def test_one_row_of_a_graph_without_a_place_for_padding(session):
    texts = Texts(1, uneven=False)
    texts.step(session, [[1, 2]], [[1]])
    texts.step(session, [[3]], [[0]])
    assert session.runs == [(1, HEADS, 2, WIDTH), (1, HEADS, 3, WIDTH)]


def test_a_row_is_known_by_its_place_in_memory(session):
    """The second row, run by itself in a view, is the second one of all, of which the first waits."""
    texts = Texts(2, uneven=False)
    step = ConcatenatedStep(texts.working, texts.info, (1, 1), 1, 2)
    texts.buffers.view(1).bind(step, 1)
    step.input_ids[:] = [[4]]
    step.run(session)
    # Not seen: what the run wrote is read where it is.
    texts.buffers.view(1).read(1)["0.key"][...] = 99
    both = ConcatenatedStep(texts.working, texts.info, (2, 1), 1, 2)
    texts.buffers.bind(both, 2)
    both.input_ids[:], both.past_lengths[:] = [[5], [6]], [0, 1]
    both.run(session)
    assert both.logits[1].tolist() == [[63 * 10, 1]]


def test_no_other_outputs():
    step = ConcatenatedStep(WorkingArrays(), Texts(1).info, (1, 1), 1, 2)
    with pytest.raises(RuntimeError, match="no output hidden"):
        step.add_output("hidden", (1, 2))
    assert (step.input_ids == 0).all() and (step.past_lengths == 0).all() and (step.logits_positions == 0).all()
    assert (step.input_ids.dtype, step.past_lengths.dtype, step.logits.shape) == (np.int64, np.int32, (1, 1, 2))
    assert (step.logits == 0).all()
