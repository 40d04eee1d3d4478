"""When imported graphs pass for the original ones, on stand-ins for both whose largest logit is 10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triform.export.onnx_import.encoder_decoders import check as module
from triform.export.onnx_import.encoder_decoders.check import compare_pairs, longest_answer
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import ExportError

CACHE = CacheInfo("float32", [])
IDS = list(range(20))
PAD = 9
# The shortest two are read, the shorter one alone.
SAMPLES = [{"input_ids": np.arange(length), "attention_mask": np.ones(length, np.int64)} for length in (5, 2, 4, 3)]
# Differences that are allowed in float32, and where activations are rounded.
EXACT, ROUNDED = 10 * 5e-4, 10 * 0.02


def logits_of(text, source):
    return np.append(np.random.default_rng([source, *text]).uniform(-1, 1, 4), 10).astype(np.float32)


class Pair:
    """Gives logits of a source's length and the answer so far, and others in the ways named in `off`."""

    def __init__(self, **off):
        self.off, self.read_sizes, self.runs = off, [], []

    def read(self, arrays):
        assert arrays["input_ids"][0].tolist() == [0, 1] + [PAD] * (arrays["input_ids"].shape[1] - 2)
        self.sources = arrays["attention_mask"].sum(1).tolist()
        return self

    def start(self, batch, capacity):
        assert (batch, capacity) == (len(self.sources), len(IDS))
        self.text, self.runs = [], [*self.runs, []]

    def feed(self, input_ids, positions):
        assert (input_ids == input_ids[0]).all() and positions.tolist() == [list(range(input_ids.shape[1]))] * len(
            self.sources
        )
        self.runs[-1].append(input_ids.shape[1])
        before, self.text = len(self.text), [*self.text, *input_ids[0].tolist()]
        ends = range(before + 1, len(self.text) + 1)
        found = np.array([[logits_of(self.text[:end], source) for end in ends] for source in self.sources])
        way = "batch" if len(self.sources) == 2 else "chunks" if input_ids.shape[1] in (6, 8) else "steps"
        found[-1, -1, 0] += self.off.get("once" if input_ids.shape[1] == 20 else way, 0)
        return found, {}


def compare(monkeypatch, ours, theirs, single=None, exact=True):
    opened = []

    def open_pair(folder, cache):
        opened.append(cache.single)
        return single if cache.single else ours

    monkeypatch.setattr(module, "open_pair", open_pair)
    cache, worst = compare_pairs(theirs, Path("x"), CACHE, SAMPLES, IDS, PAD, exact=exact)
    assert opened == ([False, True] if single else [False])
    return cache.single, worst


@pytest.mark.parametrize(("exact", "allowed"), [(True, EXACT), (False, ROUNDED)])
def test_the_same_in_every_way(monkeypatch, exact, allowed):
    ours, theirs = Pair(), Pair()
    assert compare(monkeypatch, ours, theirs, exact=exact) == (False, 0.0)
    # Twenty at once, six steps behind the others, thirds, and the steps again in a batch.
    once, steps, chunks = [20], [14, 1, 1, 1, 1, 1, 1], [6, 6, 8]
    assert theirs.runs == [once, steps, steps]
    assert ours.runs == ([once, steps, chunks, steps] if exact else [once, steps, steps])
    for way in ("once", "batch"):
        compare(monkeypatch, Pair(**{way: 0.9 * allowed}), Pair(), exact=exact)


@pytest.mark.parametrize("by", [1.1 * EXACT, -1.1 * EXACT, np.nan])
@pytest.mark.parametrize("way", ["once", "batch", "chunks"])
def test_graphs_for_single_steps(monkeypatch, way, by):
    """What differs where several tokens are fed is tried one token at a time."""
    assert compare(monkeypatch, Pair(**{way: by}), Pair(), Pair()) == (True, 0.0)


@pytest.mark.parametrize("by", [1.1 * EXACT, np.nan])
@pytest.mark.parametrize(("way", "said"), [("once", "at once"), ("steps", "in steps"), ("batch", "in a batch")])
def test_graphs_that_compute_something_else(monkeypatch, way, said, by):
    with pytest.raises(
        ExportError, match=rf"are not of one model: logits {said} differ by .* \(allowed 0\.005\); export"
    ):
        compare(monkeypatch, Pair(**{way: by}), Pair(), None if way == "steps" else Pair(**{way: by}))


def test_a_text_in_a_batch_is_as_it_is_alone(monkeypatch):
    """Both pairs have the same fault."""

    class Mixed(Pair):
        def feed(self, input_ids, positions):
            found, others = super().feed(input_ids, positions)
            if len(self.sources) == 2:
                found[0] += self.off["first"]
            return found, others

    compare(monkeypatch, Mixed(first=0.9 * EXACT), Mixed(first=0.9 * EXACT))
    with pytest.raises(
        ExportError, match=r"other logits for a text in a batch than for it alone, by 0\.0055 \(allowed"
    ):
        compare(monkeypatch, Mixed(first=1.1 * EXACT), Mixed(first=1.1 * EXACT))
    # Where activations are rounded, that is told as a number only.
    compare(monkeypatch, Mixed(first=9.0), Mixed(first=9.0), exact=False)


def test_how_much_rounded_logits_change_with_the_way(monkeypatch):
    """Steps differ by 3 of 10 from what is computed at once, in both pairs."""
    assert compare(monkeypatch, Pair(steps=3.0), Pair(steps=3.0), exact=False) == (False, pytest.approx(0.3, abs=1e-6))
    assert compare(monkeypatch, Pair(steps=-3.0), Pair(steps=-3.0), exact=False)[1] == pytest.approx(0.3, abs=1e-6)


def test_rounded_graphs_for_single_steps_are_compared_with_single_steps(monkeypatch):
    theirs = Pair()
    assert compare(monkeypatch, Pair(once=2.0), theirs, Pair(), exact=False)[0]
    assert theirs.runs[3:] == [[1] * 20] * 3


class Table:
    """Has positions for so many tokens."""

    def start_behind(self, length):
        self.length = length

    def feed(self, input_ids, positions):
        assert input_ids.shape == positions.shape == (1, 1)
        if self.length + 1 > self.positions:
            raise ExportError("out of bounds")


class Encoder:
    def run(self, arrays):
        assert arrays["input_ids"].tolist() == [[0, 1]]
        return {"last_hidden_state": "states"}


@pytest.mark.parametrize("limit", [1, 2, 3, 64, 100])
def test_where_a_table_of_positions_ends(monkeypatch, limit):
    table = Table()
    monkeypatch.setattr(module, "ConcatenatedRunner", lambda path, cache, cores: table)
    monkeypatch.setattr(module, "EncoderRunner", lambda path, cores: Encoder())
    for positions in range(1, limit + 2):
        table.positions = positions
        assert longest_answer(Path("x"), CACHE, SAMPLES[1], PAD, limit) == min(positions, limit)
        assert table.encoder_outputs == {"last_hidden_state": "states"}
    table.positions = 0
    with pytest.raises(ExportError, match=r"^the imported graphs cannot be run on a token$"):
        longest_answer(Path("x"), CACHE, SAMPLES[1], PAD, limit)
