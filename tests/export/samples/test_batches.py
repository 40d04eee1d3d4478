"""Samples of several lengths in one batch."""

from __future__ import annotations

import numpy as np

from triform.export.samples.batches import padded


def test_shorter_samples_are_padded_at_their_end():
    one = {"input_ids": np.array([5, 6, 7]), "attention_mask": np.array([1, 1, 1]), "prompt_lengths": np.array(2),
           "bbox": np.ones((3, 4), np.int64)}  # fmt: skip
    two = {"input_ids": np.array([8]), "attention_mask": np.array([1]), "prompt_lengths": np.array(0),
           "bbox": np.full((1, 4), 9)}  # fmt: skip
    found = padded([one, two], 3)
    assert {name: array.tolist() for name, array in found.items()} == {
        "input_ids": [[5, 6, 7], [8, 3, 3]], "attention_mask": [[1, 1, 1], [1, 0, 0]], "prompt_lengths": [2, 0],
        "bbox": [[[1] * 4] * 3, [[9] * 4, [0] * 4, [0] * 4]],
    }  # fmt: skip
    frames = padded([{"x": np.ones((2, 3), np.float32)}, {"x": np.ones((4, 3), np.float32)}], 7)["x"]
    assert frames.dtype == np.float32 and frames.sum(axis=(1, 2)).tolist() == [6, 12] and frames[0, 2:].sum() == 0
