"""What an encoder computed, for all sources or some of them."""

from __future__ import annotations

import numpy as np

from triform.runtime.graphs.encoder_output import HostEncoderOutput


def test_some_sources_are_copied_in_the_order_they_are_named():
    states = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    output = HostEncoderOutput({"states": states, "mask": np.array([[1], [2], [3]])})
    assert output.sources == 3
    chosen = output.only([2, 0])
    assert chosen.sources == 2
    assert chosen.values["states"].tolist() == [[[8, 9], [10, 11]], [[0, 1], [2, 3]]]
    assert chosen.values["mask"].tolist() == [[3], [1]]
    states[:] = -1
    assert chosen.values["states"][0, 0, 0] == 8


def test_all_sources_are_not_copied():
    output = HostEncoderOutput({"states": np.zeros((2, 1))})
    assert output.only([0, 1]) is output
    assert output.only([1, 0]) is not output
