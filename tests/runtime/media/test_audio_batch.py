"""Rows of audio in one run of a graph, padded and masked, or in a run of each length. The graph here adds up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.errors import BundleError
from triform.runtime.media.audio_batch import AudioStep

ROWS = [np.arange(1, 1 + count, dtype=np.float32) for count in (5, 3, 5, 1)]


class Sums:
    """A frame for each number: the sum of all that the mask does not hide, where there is one."""

    def __init__(self):
        self.shapes = []

    def run(self, outputs, feeds):
        assert outputs == ["logits"]
        sounds = feeds["input_values"]
        self.shapes.append(sounds.shape)
        shown = sounds * feeds.get("attention_mask", feeds.get("padding_mask", 1))
        return [np.tile(shown.sum(1, keepdims=True)[..., None], (1, sounds.shape[1], 1))]


def step(session, *names):
    return AudioStep(session, SimpleNamespace(inputs=[SimpleNamespace(name=name) for name in names]), -7.0)


@pytest.mark.parametrize("mask", ["attention_mask", "padding_mask"])
def test_a_mask_hides_padding(mask):
    session = Sums()
    found = step(session, "input_values", mask).logits(ROWS)
    assert session.shapes == [(4, 5)]
    assert [float(row[0, 0]) for row in found] == [15, 6, 15, 1]


def test_without_a_mask_rows_of_one_length_run_together():
    session = Sums()
    found = step(session, "input_values").logits(ROWS)
    assert sorted(session.shapes) == [(1, 1), (1, 3), (2, 5)]
    assert [row.shape for row in found] == [(5, 1), (3, 1), (5, 1), (1, 1)]
    assert [float(row[0, 0]) for row in found] == [15, 6, 15, 1]


def test_a_graph_that_takes_something_else():
    for names in (("input_values", "input_ids"), ("attention_mask",), ()):
        with pytest.raises(BundleError, match="not audio; export the model again"):
            step(Sums(), *names)
