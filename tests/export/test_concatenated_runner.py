"""Decoders whose graphs concatenate, fed rows of any lengths: sums of tokens, whatever runs together."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from tests.helpers.summing_graph import HEADS, WIDTH, summing_graph
from triform.export.concatenated_runner import ConcatenatedRunner, decoder_runner
from triform.export.runners import DecoderRunner
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo

EVEN = CacheInfo("float32", [LayerCacheInfo(HEADS, WIDTH)], growth="concatenated", uneven=False)
UNEVEN = dataclasses.replace(EVEN, uneven=True)
SINGLE = dataclasses.replace(UNEVEN, single=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "decoder.onnx"
    onnx.save(summing_graph(), path)
    return path


class Texts:
    """Rows of tokens that a runner is fed, and what it gives."""

    def __init__(self, path, cache, rows):
        self.runner, self.texts, self.single = (
            ConcatenatedRunner(path, cache, 1),
            [[] for _ in range(rows)],
            cache.single,
        )
        self.runner.start(rows, 99)

    def feed(self, tokens, positions, lengths=None):
        """63 times the sum of each row's tokens up to a place, and how many there were before the run."""
        before = [len(text) for text in self.texts]
        given = None if lengths is None else np.array(lengths)
        logits, others = self.runner.feed(np.array(tokens), np.array(positions), given)
        assert others == {} and self.runner.extra_outputs == []
        for row, new in enumerate(tokens):
            self.texts[row] += new[: None if lengths is None else lengths[row]]
            for place, position in enumerate(positions[row]):
                seen = before[row] + (position if self.single else 0)
                total = 63 * sum(self.texts[row][: before[row] + position + 1])
                assert logits[row, place].tolist() == [total, seen]
        assert self.runner.lengths.tolist() == [len(text) for text in self.texts]


@pytest.mark.parametrize("cache", [EVEN, UNEVEN, SINGLE], ids=["even", "uneven", "single"])
def test_rows_of_any_lengths(path, cache):
    texts = Texts(path, cache, 3)
    texts.feed([[1, 2, 3], [4, 5, 0], [6, 0, 0]], [[0, 2], [1, 1], [0, 0]], [3, 2, 1])
    texts.feed([[7], [8], [9]], [[0], [0], [0]])
    texts.feed([[1, 2], [3, 4], [5, 6]], [[1], [0], [1]])
    texts.feed([[1, 2], [3, 0], [4, 5]], [[1], [0], [0]], [2, 1, 2])


@pytest.mark.parametrize("cache", [EVEN, UNEVEN, SINGLE], ids=["even", "uneven", "single"])
def test_rows_of_one_length(path, cache):
    texts = Texts(path, cache, 2)
    texts.feed([[1, 2], [3, 4]], [[0, 1], [1, 0]])
    texts.feed([[5], [6]], [[0], [0]])


def runs(monkeypatch, runner):
    """The numbers of rows and tokens of each run."""
    from triform.export import concatenated_runner as module

    found, original = [], module.run_session

    def run(session, names, feeds):
        found.append(feeds["input_ids"].shape)
        return original(session, names, feeds)

    monkeypatch.setattr(module, "run_session", run)
    return found


def test_what_runs_together(path, monkeypatch):
    """Rows that are fed as many tokens, and have as many where the graph hides no padding."""
    for cache, expected in ((UNEVEN, [(1, 2), (1, 1), (2, 1)]), (EVEN, [(1, 2), (1, 1), (1, 1), (1, 1)])):
        texts = Texts(path, cache, 2)
        found = runs(monkeypatch, texts.runner)
        texts.feed([[1, 2], [3, 0]], [[1], [0]], [2, 1])
        texts.feed([[4], [5]], [[0], [0]])
        assert found == expected
        monkeypatch.undo()
    texts = Texts(path, EVEN, 2)
    found = runs(monkeypatch, texts.runner)
    texts.feed([[1, 2], [3, 4]], [[1], [0]], [2, 2])
    assert found == [(2, 2)]


def test_a_row_behind_some_that_are_nothing(path):
    runner = ConcatenatedRunner(path, UNEVEN, 1)
    assert runner.lengths.tolist() == [0]
    runner.start_behind(4)
    logits, _ = runner.feed(np.array([[2]]), np.array([[0]]))
    assert logits.tolist() == [[[63 * 2, 4]]] and runner.lengths.tolist() == [5]


def test_which_runner_a_graph_needs(path):
    assert isinstance(decoder_runner(path, EVEN, 1), ConcatenatedRunner)
    assert isinstance(decoder_runner(path, dataclasses.replace(EVEN, growth="in_place", uneven=True), 1), DecoderRunner)
