"""What an encoder computed, for all sources or some of them."""

from __future__ import annotations

import numpy as np

from triform.runtime.graphs.encoder_output import HostEncoderOutput, SourceSession


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


class Bound:
    """A binding that remembers the sources that it was given."""

    def bind_ortvalue_input(self, name, value):
        self.sources = value.numpy()[:, 0].tolist()

    def bind_cpu_input(self, name, value):
        self.sources = np.asarray(value)[:, 0].tolist()


class Session:
    def io_binding(self):
        return Bound()


def test_a_run_of_some_rows_reads_the_sources_of_these():
    """Three sources with two rows each, side by side."""
    session = SourceSession(Session(), HostEncoderOutput({"states": np.array([[5.0], [6.0], [7.0]], np.float32)}))
    for rows, sources in (([0, 1], [5, 5]), ([2, 5], [6, 7]), ([0, 3, 4], [5, 6, 7])):
        assert session.io_binding_of(np.array(rows), 6).sources == sources
