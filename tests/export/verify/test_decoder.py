"""What the comparison with PyTorch notices on graphs that are tables, and in which pieces a text is fed to them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tests.checkpoints.decoder_families import FAMILIES, build
from triform.export.runners import Feeding, fed
from triform.export.verify.decoder import (
    all_logits,
    check_parity,
    check_states,
    chunked_results,
    logits_feeding,
    logits_of,
    parity_feedings,
    parity_of,
    quantized_decoder_parity,
    reference_logits,
    reference_states,
    shared_feeding,
    states_feeding,
    unshared_feedings,
    verify_decoder,
    verify_rows,
)
from triform.models.decoder.hidden_states import LAST_HIDDEN_STATE
from triform.runtime.bundle.export_record import Parity
from triform.runtime.errors import ExportError

IDS = list(range(24))


class Table:
    """A decoder whose logits after a token depend on its place alone."""

    def __init__(self, logits):
        self.logits = np.asarray(logits, np.float32)

    def start(self, batch, capacity):
        self.lengths = np.zeros(batch, int)

    def feed(self, input_ids, positions, sizes=None):
        places = self.lengths[:, None] + positions
        self.lengths = self.lengths + (input_ids.shape[1] if sizes is None else sizes)
        return self.logits[places], {}


def table():
    return np.random.default_rng(0).normal(size=(len(IDS), 5)).astype(np.float32)


def test_equal_logits_pass():
    assert verify_decoder(Table(table()), table(), IDS).prefill == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, 9.0])
@pytest.mark.parametrize("place", [0, 12, 22, 23])
@pytest.mark.parametrize(
    ("verify", "message"),
    [
        (verify_decoder, "does not compute what PyTorch does"),
        (verify_rows, "logits with the blocks of the file differ by"),
    ],
)
def test_logits_that_differ_in_one_place_fail(verify, message, value, place):
    logits = table()
    logits[place, 2] = value
    with pytest.raises(ExportError, match=message):
        verify(Table(logits), table(), IDS)


def test_rows_that_are_equal_at_once_and_alone_pass():
    fed_sizes = []

    class Counting(Table):
        def feed(self, input_ids, positions, sizes=None):
            fed_sizes.append(input_ids.shape[1])
            return super().feed(input_ids, positions, sizes)

    verify_rows(Counting(table()), table(), IDS)
    assert fed_sizes == [23, 1]


def test_divergence_is_from_the_original_to_the_quantized():
    """KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308; the reverse is 0.1438."""
    original = np.log(np.tile([0.75, 0.25], (4, 1))).astype(np.float32)
    quantized = np.log(np.tile([0.5, 0.5], (4, 1))).astype(np.float32)
    found = quantized_decoder_parity(lambda piece: original[: len(piece)], Table(quantized), [0, 1, 0, 0], 4)
    assert found.mean_kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)
    # Three tokens are predicted: 1, 0 and 0.
    assert found.perplexity_original == pytest.approx((0.25 * 0.75 * 0.75) ** (-1 / 3), rel=1e-5)
    assert found.perplexity_quantized == pytest.approx(2.0, rel=1e-5)


def lengths_of(feeding):
    return [chunk.input_ids.shape[1] for chunk in feeding.chunks]


@pytest.mark.parametrize("count", [16, 17, 24, 48, 192])
def test_a_text_is_fed_in_four_ways(count):
    """At once, in chunks of a third, one, seven and the rest, with eight single steps at its end, and as two rows."""
    ids = [100 + place for place in range(count)]
    whole, chunked, steps, ragged = parity_feedings(ids)
    third = count // 3
    assert lengths_of(whole) == [count] and lengths_of(chunked) == [third, 1, 7, count - third - 8]
    assert lengths_of(steps) == [count - 8, *[1] * 8]
    for feeding in (whole, chunked, steps):
        assert (feeding.batch, feeding.capacity) == (1, count)
        assert np.concatenate([chunk.input_ids[0] for chunk in feeding.chunks]).tolist() == ids
        for chunk in feeding.chunks:
            assert chunk.positions.tolist() == [list(range(chunk.input_ids.shape[1]))] and chunk.lengths is None
    long, short = count // 2, count // 3
    first, *others = ragged.chunks
    assert first.input_ids.tolist() == [ids[:long], ids[:short] + [0] * (long - short)]
    assert (first.positions.tolist(), first.lengths.tolist()) == ([[long - 1], [short - 1]], [long, short])
    assert [chunk.input_ids.tolist() for chunk in others] == [[[ids[long + n]], [ids[short + n]]] for n in range(6)]
    assert all((one.positions.tolist(), one.lengths.tolist()) == ([[0], [0]], [1, 1]) for one in others)
    assert (ragged.batch, ragged.capacity) == (2, long + 6)
    assert [lengths_of(feeding) for feeding in unshared_feedings(ids)] == [
        lengths_of(f) for f in (whole, steps, ragged)
    ]


@pytest.mark.parametrize("way", [0, 1, 2, 3])
def test_each_way_is_compared_by_itself(way):
    """One logit of a way is off by 3; all logits are at most 4."""
    expected = np.clip(table(), -4, 4)
    expected[5, 1] = -4
    results = list(fed(Table(expected), parity_feedings(IDS)))
    firsts = [0, 1, 5, 14]
    logits, more = results[firsts[way]]
    results[firsts[way]] = logits + 3 * np.eye(logits.shape[-1])[2], more
    found = parity_of(iter(results), expected, IDS)
    differences = [found.prefill, found.chunked, found.step, found.ragged]
    assert differences == pytest.approx([3.0 if place == way else 0.0 for place in range(4)])
    assert (found.scale, found.tolerance) == (4.0, pytest.approx(0.002))


def test_the_last_single_steps_of_two_rows_are_compared():
    expected = table()
    *results, (logits, more) = fed(Table(expected), parity_feedings(IDS))
    assert len(results) == 1 + 4 + 9 + 6
    found = parity_of(iter([*results, (logits + np.array([[[0.0]], [[2.0]]]), more)]), expected, IDS)
    assert found.ragged == pytest.approx(2.0)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
def test_a_long_text_is_fed_in_chunks_of_128(count):
    ids, logits = list(range(count)), np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)
    feeding = logits_feeding(ids)
    assert lengths_of(feeding) == [128] * (count // 128) + [count % 128] * (count % 128 > 0)
    np.testing.assert_array_equal(all_logits(Table(logits), ids), logits)
    # What follows is left.
    results = fed(Table(logits), [feeding, Feeding(1, count, feeding.chunks[:1])])
    np.testing.assert_array_equal(logits_of(results, feeding), logits)
    assert len(list(results)) == 1


def test_the_beginning_of_a_text_need_not_be_fed_twice():
    ids, logits = list(range(200)), np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    feeding = shared_feeding(ids, 24)
    assert lengths_of(feeding) == [8, 1, 7, 8, 128, 48]
    shared = list(chunked_results(logits_of(fed(Table(logits), [feeding]), feeding)[:24]))
    alone = list(fed(Table(logits), [parity_feedings(ids[:24])[1]]))
    for (found, more), (expected, _) in zip(shared, alone, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert more == {}


@pytest.mark.parametrize(("error", "fits"), [(0.0, True), (0.0019, True), (0.0022, False), (math.nan, False)])
def test_states_of_three_runs(error, fits):
    """The largest number is 4, and a 2000th of it may differ."""
    feeding = states_feeding(IDS)
    assert lengths_of(feeding) == [14, 1, 9]
    assert all(chunk.positions.tolist() == [[0]] for chunk in feeding.chunks)
    expected = np.random.default_rng(2).uniform(-3, 3, (24, 2)).astype(np.float32)
    expected[3, 1] = -4
    found = expected.copy()
    found[20, 0] += error
    results = iter([(None, {LAST_HIDDEN_STATE: part[None]}) for part in np.split(found, [14, 15])])
    if fits:
        check_states(results, expected)
        return
    with pytest.raises(ExportError, match=r"hidden states differ by .*; export without `hidden_states`"):
        check_states(results, expected)


def test_windows_of_a_text_are_compared_one_by_one():
    """Five tokens in windows of two: of each but the last one token is predicted; the last window has none."""
    seen = []

    def original(piece):
        seen.append(piece)
        return np.log(np.tile([0.75, 0.25], (len(piece), 1))).astype(np.float32)

    quantized = Table(np.log([[0.75, 0.25], [0.25, 0.75]]))
    found = quantized_decoder_parity(original, quantized, [0, 1, 0, 1, 0], 2)
    assert seen == [[0, 1], [0, 1]]
    assert (found.tokens, found.top1_agreement) == (2, 0.5)
    assert found.mean_kl == pytest.approx((0.75 * math.log(3) + 0.25 * math.log(1 / 3)) / 2, rel=1e-5)
    assert found.perplexity_original == found.perplexity_quantized == pytest.approx(4.0, rel=1e-5)


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


@pytest.mark.parametrize("reference", [reference_logits, reference_states])
def test_a_model_that_cannot_read_its_own_config(reference):
    """Its router is to choose more experts than there are."""
    model_type, settings = FAMILIES["mixtral"]
    model = build(model_type, {**settings, "num_experts_per_tok": settings["num_local_experts"] + 1})
    with pytest.raises(ExportError, match="own model does not read a text of 4 tokens: selected index k out of range"):
        reference(model, [5, 6, 7, 8])
