"""Sums of squares of what Linears are given, over all windows of a text; numbers by arithmetic."""

from __future__ import annotations

import numpy as np

from triform.export.quantize.energies import energies_of, energy_feedings


def test_a_text_is_cut_into_windows():
    feedings = energy_feedings([5, 6, 7, 8, 9, 10, 11], 3)
    assert [(feeding.batch, feeding.capacity) for feeding in feedings] == [(1, 3), (1, 3), (1, 1)]
    chunks = [chunk for feeding in feedings for chunk in feeding.chunks]
    assert [chunk.input_ids.tolist() for chunk in chunks] == [[[5, 6, 7]], [[8, 9, 10]], [[11]]]
    assert {chunk.lengths for chunk in chunks} == {None}


def test_the_head_reads_tokens_all_over_a_window():
    positions = [feeding.chunks[0].positions.tolist() for feeding in energy_feedings(list(range(30)), 20)]
    assert positions == [[[19, 11, 3]], [[9, 1]]]


def test_windows_are_added_up_and_what_follows_is_left():
    logits = np.zeros((1, 1, 4), np.float32)
    results = iter(
        [
            (logits, {"energy.0": np.array([1, 2], np.float32), "hidden": np.ones(3, np.float32)}),
            (logits, {"energy.0": np.array([10, 20], np.float32), "energy.5": np.array([4], np.float32)}),
            (logits, {"energy.0": np.array([100, 200], np.float32)}),
        ]
    )
    found = energies_of(results, 2)
    assert {name: value.tolist() for name, value in found.items()} == {"energy.0": [11, 22], "energy.5": [4]}
    assert len(list(results)) == 1
