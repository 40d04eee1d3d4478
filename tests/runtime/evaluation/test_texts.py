"""Perplexity of a text by arithmetic, from the log-probabilities of a model that is a list."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.errors import InputError
from triform.runtime.evaluation.texts import evaluate_text


def decoder(logprobs, asked=None):
    """The first token has no log-probability of its own."""

    def score(text, window):
        if asked is not None:
            asked.append((text, window))
        return SimpleNamespace(logprobs=(None, *logprobs), token_ids=tuple(range(len(logprobs) + 1)))

    return SimpleNamespace(score=score, manifest=SimpleNamespace(max_length=640))


def values(measured, rows=slice(None)):
    return {metric.name: metric.compute(measured.rows[rows]) for metric in measured.metrics}


def test_tokens_of_one_likelihood_have_its_inverse_as_perplexity():
    asked = []
    measured = evaluate_text(decoder([math.log(1 / 8)] * 10, asked), "é" * 15)
    # Three bits for each of ten tokens, over thirty bytes.
    assert values(measured) == pytest.approx({"perplexity": 8, "bits per byte": 3 * 10 / 30})
    assert measured.scores == pytest.approx([math.log(1 / 8)])
    assert asked == [("é" * 15, None)]
    assert measured.details == {"tokens": 11, "bytes": 30, "window": 640, "stride": 320}
    assert measured.same_items == (tuple(range(11)), 640)


def test_blocks_hold_128_tokens_and_the_last_one_the_rest():
    logprobs = [-0.01 * number for number in range(300)]
    measured = evaluate_text(decoder(logprobs), "a" * 600, window=51)
    blocks = [logprobs[:128], logprobs[128:256], logprobs[256:]]
    assert measured.rows == pytest.approx(np.array([[-sum(one), len(one), 2 * len(one)] for one in blocks]))
    assert measured.scores == pytest.approx([sum(one) / len(one) for one in blocks])
    assert measured.item == "blocks of 128 tokens"
    assert (measured.details["window"], measured.details["stride"]) == (51, 25)
    assert values(measured)["perplexity"] == pytest.approx(math.exp(-sum(logprobs) / 300))
    # A sample of the blocks has the perplexity of its own tokens.
    assert values(measured, [2, 2])["perplexity"] == pytest.approx(math.exp(-sum(blocks[2]) / 44))
    assert values(measured, [0])["bits per byte"] == pytest.approx(-sum(blocks[0]) / math.log(2) / 256)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (127, 1), (128, 1), (129, 2), (256, 2), (257, 3)])
def test_as_many_blocks_as_are_needed(count, rows):
    measured = evaluate_text(decoder([-1.0] * count), "text")
    assert measured.rows.shape == (rows, 3)
    assert measured.rows[:, 1].sum() == count


def test_a_single_token_has_no_perplexity():
    with pytest.raises(InputError, match="at least two tokens"):
        evaluate_text(decoder([]), "a")
