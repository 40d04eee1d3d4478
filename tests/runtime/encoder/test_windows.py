"""Inputs that were cut into windows get their results back, whatever is empty."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.encoder.windows import run_windows
from triform.runtime.text.rows import Row


class Lengths:
    """An encoder whose result is the number of tokens of a row."""

    def in_batches(self, rows, outputs):
        # As the encoder's step does: all rows of a batch are read before its first result.
        for row in list(rows):
            yield (np.array([len(row.ids)], np.float32),)


def row(length):
    return Row(list(range(length)), [0] * length)


@pytest.mark.parametrize(
    "lengths", [[[3], [0]], [[0], [0]], [[0], [2, 5], [0], [1], [0], []], [[]], [[1], [2, 0, 4], [0, 0]]]
)
def test_every_input_is_answered_in_order(lengths):
    inputs = [(index, [row(length) for length in windows]) for index, windows in enumerate(lengths)]
    answered = list(run_windows(Lengths(), inputs, ["logits"]))
    assert [item for item, _, _ in answered] == list(range(len(lengths)))
    for (_, rows, results), windows in zip(answered, lengths, strict=True):
        assert [len(window.ids) for window in rows] == [length for length in windows if length]
        assert [float(result[0]) for (result,) in results] == [length for length in windows if length]
