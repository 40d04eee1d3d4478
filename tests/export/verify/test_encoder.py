"""What the comparison of an encoder with PyTorch notices, on graphs that are tables."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from triform.export.verify.encoder import (
    ReferenceBatch,
    quantized_encoder_parity,
    verify_encoder,
    worst_parity,
)
from triform.runtime.bundle.export_record import EncoderParity, QuantizedEncoderParity
from triform.runtime.errors import ExportError

NAMES = ["states", "sentence_embedding"]
TABLE = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
SAMPLES = [{"input_ids": np.arange(2, 9)}, {"input_ids": np.arange(11, 15)}, {"input_ids": np.arange(20, 22)}]


class Graph:
    """A state for each token, and their mean; `spoil` may change the arrays of a run before they are returned."""

    ragged = frozenset(["states"])

    def __init__(self, spoil=lambda results: None):
        self.spoil = spoil

    def run(self, arrays, names):
        ids = arrays["input_ids"]
        states = TABLE[ids].copy()
        own = (ids > 0)[..., None]
        means = ((states * own).sum(1) / own.sum(1)).astype(np.float32)
        results = {"states": states, "sentence_embedding": means}
        self.spoil(results)
        return {name: results[name] for name in names}


def reference():
    arrays = Graph().run(
        {"input_ids": np.array([[*range(2, 9)], [*range(11, 15), 0, 0, 0], [20, 21, *[0] * 5]])}, NAMES
    )
    # What PyTorch gives for padding is of no importance.
    arrays["states"][1, 4:] = arrays["states"][2, 2:] = 77
    return ReferenceBatch(SAMPLES, [torch.from_numpy(arrays[name]) for name in NAMES], 0)


def in_batch(name, place, value):
    def spoil(results):
        if len(results[name]) > 1:
            results[name][place] = value

    return spoil


def alone(name, place, value):
    """In the run of the second sample, which is the one of four tokens."""

    def spoil(results):
        if results["states"].shape[:2] == (1, 4):
            results[name][place] = value

    return spoil


def test_equal_outputs_pass_whatever_padding_gives():
    found = verify_encoder(Graph(), NAMES, reference())
    assert found.batch == 0
    assert found.single < 1e-6
    assert found.scale == 77
    assert found.tolerance == pytest.approx(5e-4 * 77)


@pytest.mark.parametrize("value", [math.nan, math.inf, 9.0])
@pytest.mark.parametrize(
    ("run", "name", "place"),
    [
        (in_batch, "states", (0, 6, 4)),
        (in_batch, "states", (1, 3, 0)),
        (in_batch, "states", (2, 0, 2)),
        (in_batch, "sentence_embedding", (1, 1)),
        (alone, "states", (0, 0, 0)),
        (alone, "states", (0, 3, 4)),
        (alone, "sentence_embedding", (0, 1)),
    ],
)
def test_one_number_that_differs_fails(run, name, place, value):
    with pytest.raises(ExportError, match="the graph does not match PyTorch"):
        verify_encoder(Graph(run(name, place, value)), NAMES, reference())


def test_the_tokens_of_rows_may_be_counted_otherwise():
    """As of audio, whose frames are fewer than its samples: of the second row only three of four here."""
    spoiled = in_batch("states", (1, 3, 0), 9.0)

    def of_three(results):
        spoiled(results)
        if results["states"].shape[1] == 4:
            results["states"] = results["states"][:, :3]

    assert verify_encoder(Graph(of_three), NAMES, replace(reference(), counts=[7, 3, 2])).batch == 0
    with pytest.raises(ExportError, match="the graph does not match PyTorch"):
        verify_encoder(Graph(spoiled), NAMES, replace(reference(), counts=[7, 4, 2]))


class Fixed:
    """Gives the next row of a list at each run."""

    def __init__(self, rows):
        self.rows = [np.array([row], np.float32) for row in rows]

    def run(self, arrays, names):
        return {names[0]: self.rows.pop(0)}


def measured(name, original, quantized, problem_type=None, blank=None):
    rows = [np.array([row], np.float32) for row in original]
    samples = [{"input_ids": np.array([1])}] * len(rows)
    return quantized_encoder_parity(lambda arrays: rows.pop(0), Fixed(quantized), name, samples, 0, problem_type, blank)


def test_vectors_are_compared_by_their_cosines():
    """(3, 4) and (4, 3) have the cosine 24 / 25, whatever their lengths; equal ones have 1, opposite ones -1."""
    found = measured("sentence_embedding", [[3, 4], [1, 2], [3, 4]], [[40, 30], [1, 2], [4, 3]])
    assert found == QuantizedEncoderParity(3, pytest.approx((0.96 + 1 + 0.96) / 3), pytest.approx(0.96))
    assert measured("image_embedding", [[3, 4]], [[-3, -4]]).cosine_worst == pytest.approx(-1)


@pytest.mark.parametrize(
    ("problem_type", "differences"),
    [
        # 1 / (1 + 1/3) against 1/2; and sigmoids: 3/4 against 1/2; and the numbers themselves.
        (None, [0.25, 0.0]),
        ("multi_label_classification", [0.25, 0.0]),
        ("regression", [math.log(3), 0.0]),
    ],
)
def test_scores_are_compared_after_what_makes_them_probabilities(problem_type, differences):
    rows, others = [[math.log(3), 0.0], [0.5, 0.5]], [[0.0, 0.0], [0.5, 0.5]]
    found = measured("logits", rows, others, problem_type)
    mean, worst = sum(differences) / 2, max(differences)
    assert found == QuantizedEncoderParity(
        2, score_mean=pytest.approx(mean, rel=1e-5), score_worst=pytest.approx(worst, rel=1e-5)
    )


def test_what_ctc_writes_is_compared_by_its_tokens():
    """One of three tokens is another, and one more is written where nothing is."""
    one_hot = np.eye(4) * 9
    expected, actual = [one_hot[[1, 1, 0, 2, 3]], one_hot[[0, 0]]], [one_hot[[1, 1, 0, 1, 3]], one_hot[[0, 2]]]
    assert measured("logits", expected, actual, blank=0).token_errors == pytest.approx(2 / 3)
    assert measured("logits", expected, expected, blank=0).token_errors == 0
    assert measured("logits", expected, actual).token_errors is None


def test_of_several_batches_the_worst_counts():
    first = EncoderParity(1e-5, 4e-5, 2.0, 1e-3, QuantizedEncoderParity(10, 0.99, 0.9))
    second = EncoderParity(3e-5, 2e-5, 1.0, 5e-4, QuantizedEncoderParity(30, 0.95, 0.8))
    expected = EncoderParity(3e-5, 4e-5, 2.0, 1e-3, QuantizedEncoderParity(40, pytest.approx(0.96), 0.8))
    assert worst_parity([first, second]) == worst_parity([second, first]) == expected
    for place in (0, 1):
        parities = [first, second]
        parities[place] = replace(parities[place], batch=math.nan)
        assert math.isnan(worst_parity(parities).batch)
