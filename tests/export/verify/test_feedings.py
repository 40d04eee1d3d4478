"""In which pieces a text is fed to a decoder, written out, and what is measured of states and windows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from triform.export.runners import Feeding, fed
from triform.export.verify.decoder import (
    all_logits,
    check_parity,
    check_states,
    chunked_results,
    logits_feeding,
    parity_feedings,
    parity_of,
    quantized_decoder_parity,
    shared_feeding,
    states_feeding,
    unshared_feedings,
)
from triform.runtime.bundle.export_record import Parity
from triform.runtime.errors import ExportError


def pieces(feeding: Feeding):
    return [chunk.input_ids.tolist() for chunk in feeding.chunks]


def test_a_text_of_24_tokens_in_four_ways():
    ids = list(range(100, 124))
    whole, chunked, steps, ragged = parity_feedings(ids)
    assert pieces(whole) == [[ids]]
    # A third, one, seven, and the rest.
    assert pieces(chunked) == [[ids[:8]], [ids[8:9]], [ids[9:16]], [ids[16:]]]
    assert pieces(steps) == [[ids[:16]], *([[token]] for token in ids[16:])]
    for feeding in (whole, chunked, steps):
        assert (feeding.batch, feeding.capacity) == (1, 24)
        for chunk in feeding.chunks:
            assert chunk.positions.tolist() == [list(range(chunk.input_ids.shape[1]))] and chunk.lengths is None
    # Half and a third of it, then six steps of each.
    first, *rest = ragged.chunks
    assert (ragged.batch, ragged.capacity) == (2, 18)
    assert first.input_ids.tolist() == [ids[:12], [*ids[:8], 0, 0, 0, 0]]
    assert (first.positions.tolist(), first.lengths.tolist()) == ([[11], [7]], [12, 8])
    assert [chunk.input_ids.tolist() for chunk in rest] == [[[ids[12 + k]], [ids[8 + k]]] for k in range(6)]
    assert all(chunk.positions.tolist() == [[0], [0]] and chunk.lengths.tolist() == [1, 1] for chunk in rest)


def test_runs_for_logits_and_states():
    ids = list(range(300))
    assert [len(piece[0]) for piece in pieces(logits_feeding(ids))] == [128, 128, 44]
    assert [token for piece in pieces(logits_feeding(ids)) for token in piece[0]] == ids
    states = states_feeding(ids[:24])
    assert pieces(states) == [[ids[:14]], [ids[14:15]], [ids[15:24]]]
    assert (states.batch, states.capacity) == (1, 24)
    assert all(chunk.positions.tolist() == [[0]] for chunk in states.chunks)


@pytest.mark.parametrize(("count", "rest"), [(24, [128, 128, 20]), (192, [108]), (300, [])])
def test_a_text_that_begins_as_chunks_are_fed(count, rest):
    ids = list(range(300))
    whole, chunked, steps, ragged = parity_feedings(ids[:count])
    shared = shared_feeding(ids, count)
    assert (shared.batch, shared.capacity) == (1, 300)
    assert pieces(shared)[:4] == pieces(chunked)
    assert [len(piece[0]) for piece in pieces(shared)[4:]] == rest
    assert [token for piece in pieces(shared) for token in piece[0]] == ids
    assert all(chunk.positions.tolist() == [list(range(chunk.input_ids.shape[1]))] for chunk in shared.chunks)
    others = [pieces(feeding) for feeding in unshared_feedings(ids[:count])]
    assert others == [pieces(whole), pieces(steps), pieces(ragged)]


@pytest.mark.parametrize(("place", "found"), [(None, 0), (0, 3), (8, 3), (23, 3), (24, 0)])
def test_chunks_are_compared_where_they_are_part_of_a_text(place, found):
    """A difference of 3 in one token's logits is found if that token is among the first 24."""
    ids = list(range(100, 140))
    expected = np.stack([np.arange(24), ids[:24]], -1).astype(np.float32)
    text = np.concatenate([logits[0] for logits, _ in fed(Counts(), [shared_feeding(ids, 24)])])
    if place is not None:
        text[place, 1] += 3
    whole, steps, ragged = unshared_feedings(ids[:24])
    ours = fed(Counts(), [whole, steps])
    results = itertools.chain([next(ours)], chunked_results(text[:24]), ours, rows_of(ragged, expected))
    parity = parity_of(results, expected, ids[:24])
    assert (parity.prefill, parity.chunked, parity.step, parity.ragged) == (0, found, 0, 0)


def rows_of(ragged, expected):
    """The logits of two rows of a text after each run."""
    done = np.zeros(2, int)
    for chunk in ragged.chunks:
        done += chunk.lengths
        yield expected[done - 1][:, None], {}


@pytest.mark.parametrize("way", ["prefill", "chunked", "step", "ragged"])
def test_no_way_may_differ_by_more_than_is_allowed(way):
    fine = dict.fromkeys(("prefill", "chunked", "step", "ragged"), 0.005)
    check_parity(Parity(**fine, scale=10.0, tolerance=0.005))
    for value in (0.0051, math.nan, math.inf):
        with pytest.raises(ExportError, match=f"does not compute what PyTorch does: {way} logits differ by "):
            check_parity(Parity(**{**fine, way: value}, scale=10.0, tolerance=0.005))


def test_states_are_compared_to_a_share_of_the_largest():
    """5e-4 of it."""
    expected = np.linspace(-8, 4, 24 * 3, dtype=np.float32).reshape(24, 3)

    def results(states):
        return ((None, {"last_hidden_state": states[None, start:end]}) for start, end in ((0, 14), (14, 15), (15, 24)))

    check_states(results(expected), expected)
    for place in (0, 13, 14, 15, 23):
        for change, good in ((0.0039, True), (0.0041, False), (-0.0041, False), (math.nan, False)):
            states = expected.copy()
            states[place, 1] += change
            if good:
                check_states(results(states), expected)
            else:
                with pytest.raises(ExportError, match="hidden states differ by "):
                    check_states(results(states), expected)


class Counts:
    """A decoder whose logits tell how many tokens came before, and which one it is."""

    def start(self, batch, capacity):
        self.done, self.starts = 0, getattr(self, "starts", 0) + 1

    def feed(self, input_ids, positions):
        places = self.done + positions[0]
        self.done += input_ids.shape[1]
        return np.stack([places, input_ids[0, positions[0]]], -1)[None].astype(np.float32), {}


def test_logits_of_every_position():
    ids = list(range(50, 350))
    assert all_logits(Counts(), ids).tolist() == [[place, token] for place, token in enumerate(ids)]


def test_windows_begin_with_an_empty_cache():
    """Of seven tokens in windows of three, the last one is alone, and predicts nothing."""
    ids, runner = [1, 0, 1, 1, 0, 0, 1], Counts()
    seen = []

    def original(piece):
        seen.append(list(piece))
        return np.stack([np.arange(len(piece)), piece], -1).astype(np.float32)

    found = quantized_decoder_parity(original, runner, ids, 3)
    assert seen == [[1, 0, 1], [1, 0, 0]] and runner.starts == 2
    assert (found.tokens, found.top1_agreement, found.mean_kl) == (4, 1.0, 0.0)

    def loss(place, token, target):
        """Of the softmax of (place, token)."""
        return math.log(math.exp(place) + math.exp(token)) - (place, token)[target]

    mean = (loss(0, 1, 0) + loss(1, 0, 1) + loss(0, 1, 0) + loss(1, 0, 0)) / 4
    assert found.perplexity_original == pytest.approx(math.exp(mean), rel=1e-5)
    assert found.perplexity_quantized == pytest.approx(math.exp(mean), rel=1e-5)


def test_a_window_of_two_predicts_one_token():
    found = quantized_decoder_parity(lambda piece: np.zeros((len(piece), 2), np.float32), Counts(), [1, 0, 1, 0], 2)
    assert found.tokens == 2
    # Of the first logits (0, 1) and (1, 0), and (0, 0) for both in the original.
    assert found.perplexity_original == pytest.approx(2.0)
