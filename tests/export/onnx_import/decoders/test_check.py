"""When an imported decoder passes for the original, on stand-ins for both whose largest logit is 10."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from triform.export.onnx_import.decoders import check as module
from triform.export.onnx_import.decoders.check import compare_with_original, longest_text, sample_ids
from triform.runtime.errors import ExportError

IDS = [number % 7 for number in range(30)]
WAYS = ("prefill", "chunked", "step", "ragged")
# Differences that are allowed in float32, where activations are rounded, and in a batch of these.
EXACT, ROUNDED, BATCHED = 10 * 5e-4, 10 * 0.02, 10 * 0.1


def logits_of(text):
    """float32 (5,); the last is 10."""
    return np.append(np.random.default_rng(text).uniform(-1, 1, 4), 10).astype(np.float32)


class Decoder:
    """Gives logits of the texts that it was fed, and others in the ways named in `off`."""

    def __init__(self, **off):
        self.off, self.starts = off, 0

    def start(self, batch, capacity):
        self.texts, self.way = [[] for _ in range(batch)], WAYS[self.starts]
        self.starts += 1

    def feed(self, input_ids, positions, lengths=None):
        lengths = [input_ids.shape[1]] * len(input_ids) if lengths is None else lengths
        rows = []
        for text, ids, wanted, length in zip(self.texts, input_ids.tolist(), positions.tolist(), lengths, strict=True):
            rows.append([logits_of([*text, *ids[: place + 1]]) for place in wanted])
            text += ids[:length]
        found = np.array(rows)
        found[0, -1, 0] += self.off.get(self.way, 0)
        return found, {}


def compare(monkeypatch, ours, theirs=None, *, growth="by_one", exact=True, together=False, told=True):
    monkeypatch.setattr(module, "decoder_runner", lambda path, cache, cores: ours)
    return compare_with_original(
        theirs or Decoder(**{way: by for way, by in ours.off.items() if way != "ragged"}), Path("g.onnx"),
        SimpleNamespace(growth=growth), IDS, exact=exact, together=together, told=told,
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS[:3])
@pytest.mark.parametrize(("exact", "allowed"), [(True, EXACT), (False, ROUNDED)])
def test_the_original_computes_the_same(monkeypatch, way, exact, allowed):
    assert compare(monkeypatch, Decoder(), exact=exact) == (True, 0.0)
    for by in (0.9 * allowed, -0.9 * allowed):
        compare(monkeypatch, Decoder(), Decoder(**{way: by}), exact=exact)
    for by in (1.1 * allowed, -1.1 * allowed, np.nan):
        with pytest.raises(ExportError, match=r"^the imported graph does not compute what the original does: logits "):
            compare(monkeypatch, Decoder(), Decoder(**{way: by}), exact=exact)


@pytest.mark.parametrize("way", ["chunked", "step"])
def test_a_text_is_read_in_chunks_and_step_by_step_as_at_once(monkeypatch, way):
    """Both graphs differ in the same way."""
    assert compare(monkeypatch, Decoder(**{way: 0.9 * EXACT})) == (True, 0.0)
    with pytest.raises(
        ExportError, match=rf"^this graph reads a text in one way only: {way} logits differ by 0\.0055 "
    ):
        compare(monkeypatch, Decoder(**{way: 1.1 * EXACT}))


@pytest.mark.parametrize("way", ["chunked", "step"])
def test_what_is_rounded_must_be_alike(monkeypatch, way):
    """By correlation, on average: a logit of a thousand leaves nothing of it, in nine tokens of thirty."""
    uneven, worst = compare(monkeypatch, Decoder(**{way: 0.5}), exact=False)
    assert uneven and worst == pytest.approx(0.05, abs=1e-6)
    if way == "step":
        # Nine runs, of which the last eight are one token each.
        with pytest.raises(
            ExportError, match=rf"^this graph reads a text in one way only: {way} logits differ by 1e\+0"
        ):
            compare(monkeypatch, Decoder(**{way: 1e3}), exact=False)


@pytest.mark.parametrize(
    ("by", "options", "uneven", "worst"),
    [
        (0.9 * EXACT, {}, True, 0),
        (1.1 * EXACT, {}, False, 0),
        (1.1 * EXACT, {"told": False}, False, 0),
        (0.9 * EXACT, {"told": False}, True, 0),
        (0.9 * BATCHED, {"exact": False}, True, 0.09),
        (1.1 * BATCHED, {"exact": False}, False, 0),
        (0.9 * BATCHED, {"exact": False, "told": False}, False, 0),
        # Where tokens are rounded together, a difference does not tell what it comes from.
        (3 * BATCHED, {"exact": False, "together": True}, True, 0.3),
        (3 * BATCHED, {"exact": False, "together": True, "told": False}, False, 0),
        (3 * BATCHED, {"exact": False, "growth": "in_place", "told": False}, True, 0.3),
        (0.9 * EXACT, {"growth": "in_place"}, True, 0),
    ],
)
def test_rows_of_different_lengths(monkeypatch, by, options, uneven, worst):
    found = compare(monkeypatch, Decoder(ragged=by), **options)
    assert found == (uneven, pytest.approx(worst, abs=1e-6))


@pytest.mark.parametrize("by", [1.1 * EXACT, np.nan])
def test_rows_of_a_batch_that_must_be_run_together(monkeypatch, by):
    with pytest.raises(ExportError, match=r"^rows of a batch differ by .* \(allowed 0\.005\) from those alone$"):
        compare(monkeypatch, Decoder(ragged=by), growth="in_place")


def encoded(text):
    return {"input_ids": list(range(200))}


@pytest.mark.parametrize(("limit", "count"), [(32, 24), (33, 25), (103, 95), (104, 96), (105, 96), (4096, 96)])
def test_as_many_tokens_as_there_is_room_for(limit, count):
    """Eight are left for what is fed behind them."""
    assert sample_ids(encoded, 1000, limit) == list(range(count))
    assert sample_ids(encoded, 20, limit) == [token % 20 for token in range(count)]


def test_too_few_tokens():
    with pytest.raises(ExportError, match=r"^the model reads 31 tokens at most, too few to compare it: 32 are needed$"):
        sample_ids(encoded, 1000, 31)


class Table:
    """Has positions for so many tokens."""

    def __init__(self, positions):
        self.positions, self.tried = positions, 0

    def start(self, batch, capacity):
        self.tried += 1

    def feed(self, input_ids, positions):
        assert input_ids.shape == positions.shape == (1, 1)
        if self.lengths[0] + 1 > self.positions:
            raise ExportError("out of bounds")


@pytest.mark.parametrize("limit", [1, 2, 3, 64, 100])
def test_where_a_table_of_positions_ends(monkeypatch, limit):
    for positions in range(1, limit + 2):
        table = Table(positions)
        monkeypatch.setattr(module, "decoder_runner", lambda path, cache, cores, table=table: table)
        assert longest_text(Path("g.onnx"), SimpleNamespace(growth="by_one"), limit) == min(positions, limit)
        assert table.tried <= 2 + limit.bit_length()


def test_no_position_at_all(monkeypatch):
    monkeypatch.setattr(module, "decoder_runner", lambda path, cache, cores: Table(0))
    with pytest.raises(ExportError, match=r"^g\.onnx cannot be run on a token$"):
        longest_text(Path("g.onnx"), SimpleNamespace(growth="by_one"), 9)
    # A cache that is written in place has its own size.
    assert longest_text(Path("g.onnx"), SimpleNamespace(growth="in_place"), 9) == 9
