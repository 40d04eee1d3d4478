"""Which vectors of a graph's activations are kept for calibration."""

from __future__ import annotations

import numpy as np

from triform.export.quantize.activations import collect_activations


class Runner:
    """Gives back the vectors that it gets."""

    def run(self, arrays, names):
        return {name: arrays["x"] for name in names}


def batch(value, length):
    return {"x": np.full((1, length, 2), value, np.float32)}


def test_every_batch_has_its_share():
    """A batch of Whisper has 1,500 vectors, and the first batch alone would fill all places."""
    kept = collect_activations(Runner(), [batch(value, 1500) for value in (1, 2, 3, 4)], ["out"], 1000)["out"]
    assert kept.shape == (1000, 2)
    assert [int((kept[:, 0] == value).sum()) for value in (1, 2, 3, 4)] == [250] * 4


def test_short_batches_leave_their_places_to_later_ones():
    kept = collect_activations(Runner(), [batch(1, 10), batch(2, 500)], ["out"], 100)["out"]
    assert [int((kept[:, 0] == value).sum()) for value in (1, 2)] == [10, 90]


def test_the_largest_number_is_kept():
    arrays = batch(1, 1000)
    arrays["x"][0, 777, 1] = -50
    kept = collect_activations(Runner(), [arrays], ["out"], 10)["out"]
    assert kept.shape == (10, 2)
    assert kept.min() == -50
