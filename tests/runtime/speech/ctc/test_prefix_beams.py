"""Beam search against every path through a few frames."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from triform.runtime.speech.ctc.decoding import GreedyDecoder
from triform.runtime.speech.ctc.prefix_beams import PrefixBeamDecoder

BLANK = 1


def _text(path):
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


def _every_path(log_probs):
    """The probability of each text, and the most likely path that gives it."""
    totals, best = {}, {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        probability = math.exp(sum(float(row[token]) for row, token in zip(log_probs, path, strict=True)))
        text = _text(path)
        totals[text] = totals.get(text, 0.0) + probability
        if probability > best.get(text, (0.0, ()))[0]:
            best[text] = probability, path
    return totals, best


def _spans(path):
    """The frames of each token of a path."""
    spans, frame = [], 0
    for token, run in itertools.groupby(path):
        length = len(list(run))
        if token != BLANK:
            spans.append((token, frame, frame + length))
        frame += length
    return spans


@pytest.mark.parametrize("shape", [(6, 4), (8, 2)])
@pytest.mark.parametrize("seed", range(12))
def test_the_most_likely_text_of_all(seed, shape):
    """Where there is one token besides the blank, texts repeat it."""
    logits = np.random.default_rng(seed).normal(0, 1.5, shape)
    log_probs = (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)
    totals, best = _every_path(log_probs)
    expected = max(totals, key=totals.get)
    # As many beams as there are texts: nothing is left out.
    decoder = PrefixBeamDecoder(BLANK, len(totals))
    tokens = [*decoder.feed(log_probs[:2]), *decoder.feed(log_probs[2:]), *decoder.finish()]
    assert tuple(token.token for token in tokens) == expected
    assert [token[:3] for token in tokens] == _spans(best[expected][1])


def test_a_sum_of_paths_beats_the_best_path():
    # Hannun et al.'s reason for the search: blank blank is the best path with 0.36, but "a" has 0.64 in three others.
    log_probs = np.log(np.array([[0.4, 0.6], [0.4, 0.6]], np.float32))
    greedy, beams = GreedyDecoder(BLANK), PrefixBeamDecoder(BLANK, 3)
    assert [*greedy.feed(log_probs), *greedy.finish()] == []
    assert [token.token for token in [*beams.feed(log_probs), *beams.finish()]] == [0]


@pytest.mark.parametrize("before", [[], [2], [2, 3]])
def test_what_another_beam_says_counts_however_unlikely_its_token_is(before):
    """Two beams, of nothing and of "a", which six other tokens are likelier than in the second frame."""
    first = [0.38, 0.5, *[0.02] * 6]
    second = [0.07, 0.35, *[0.58 / 6] * 6]
    log_probs = np.log(np.array([first, second], np.float32))
    totals, _ = _every_path(log_probs)
    # 0.38 * (0.35 + 0.07) of the paths that begin with it are less than those of nothing, with 0.5 * 0.07 more.
    assert totals[0,] == pytest.approx(0.1946, abs=1e-4) and totals[()] == pytest.approx(0.175)
    decoder = PrefixBeamDecoder(BLANK, 2)
    # After other tokens, which are certain, too.
    certain = np.log(np.full((len(before), 8), 1e-9, np.float32))
    certain[range(len(before)), before] = 0
    found = [*decoder.feed(np.concatenate([certain, log_probs])), *decoder.finish()]
    assert [token.token for token in found] == [*before, 0]


@pytest.mark.parametrize("seed", range(8))
def test_what_cannot_be_has_no_part_in_a_text(seed):
    """Half of all tokens have a probability of 0, so many paths are impossible, and so is their sum."""
    generator = np.random.default_rng(seed)
    chances = generator.random((6, 4)) * (generator.random((6, 4)) < 0.5)
    chances[np.arange(6), generator.integers(0, 4, 6)] += 0.1
    with np.errstate(divide="ignore"):
        log_probs = np.log(chances / chances.sum(-1, keepdims=True)).astype(np.float32)
    totals, best = _every_path(log_probs)
    expected = max(totals, key=totals.get)
    decoder = PrefixBeamDecoder(BLANK, len(totals))
    tokens = [*decoder.feed(log_probs), *decoder.finish()]
    assert [token[:3] for token in tokens] == _spans(best[expected][1])


def test_long_texts_are_given_away_before_the_end():
    """A path that is certain is what both decoders give, token by token, however the frames are cut."""
    path = np.random.default_rng(3).integers(0, 5, 500)
    log_probs = np.full((500, 5), math.log(1e-4), np.float32)
    log_probs[np.arange(500), path] = math.log(1 - 4e-4)
    for decoder in (GreedyDecoder(BLANK), PrefixBeamDecoder(BLANK, 4)):
        early = decoder.feed(log_probs[:333])
        assert early
        tokens = [*early, *decoder.feed(log_probs[333:]), *decoder.finish()]
        assert [token[:3] for token in tokens] == _spans(path.tolist())


def test_texts_are_given_away_again_and_again():
    """A path that gets less certain: its last frames are those that differ between beams."""
    path = np.random.default_rng(4).integers(0, 5, 500)
    others = np.linspace(math.log(1e-9), math.log(1e-2), 500, dtype=np.float32)
    log_probs = np.repeat(others[:, None], 5, 1)
    log_probs[np.arange(500), path] = np.log1p(-4 * np.exp(others))
    decoder, tokens = PrefixBeamDecoder(BLANK, 4), []
    for end in range(100, 501, 100):
        tokens += decoder.feed(log_probs[end - 100 : end])
        # In time: beams that hold the tokens of ever more frames get slower and slower.
        assert tokens[-1].end > end - 80
    assert [token[:3] for token in [*tokens, *decoder.finish()]] == _spans(path.tolist())
