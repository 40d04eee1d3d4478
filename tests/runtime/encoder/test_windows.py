"""Inputs in windows: every input is answered, whether it has windows or not."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.encoder.windows import run_windows
from triform.runtime.errors import BundleError
from triform.runtime.text.rows import TokenRow


class Step:
    """Gives the first token of each row."""

    def in_batches(self, rows, outputs):
        for row in rows:
            yield (np.array([row.ids[0]], np.float32),)


def windows_of(*firsts):
    return [TokenRow([first] if first is not None else [], []) for first in firsts]


@pytest.mark.parametrize("count", [[2, 1], [0, 1], [1, 0], [2, 0, 0], [0, 0, 3, 0, 0, 1, 0], [0], [0, 0], []])
def test_inputs_with_and_without_windows(count):
    number, inputs = 0, []
    for name, size in enumerate(count):
        inputs.append((name, windows_of(*range(number, number + size), None)))
        number += size
    found = list(run_windows(Step(), inputs, ["x"]))
    assert [name for name, _, _ in found] == list(range(len(count)))
    assert [len(windows) for _, windows, _ in found] == count
    for _, windows, results in found:
        assert [result[0][0] for result in results] == [window.ids[0] for window in windows]


def test_results_that_are_no_numbers():
    class Broken(Step):
        def in_batches(self, rows, outputs):
            for _ in rows:
                yield (np.array([np.nan], np.float32),)

    with pytest.raises(BundleError, match="not numbers"):
        list(run_windows(Broken(), [(0, windows_of(1))], ["x"]))
