"""What an encoder computed, for all sources or some of them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from triform.runtime.graphs.encoder_output import HostEncoderOutput, SourceSession, binding_of


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


def test_keys_have_as_many_positions_as_the_encoder_has_made():
    values = {"states": (2, 7, 3), "mask": (2, 9), "3.key": (2, 4, 5, 6), "3.value": (2, 4, 5, 6)}
    assert HostEncoderOutput({name: np.zeros(shape) for name, shape in values.items()}).length == 5


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
        assert binding_of(session, np.array(rows), 6).sources == sources
    # A decoder alone has no sources.
    assert not hasattr(binding_of(Session(), np.array([0]), 1), "sources")


class Counted(HostEncoderOutput):
    """Outputs that know which parts of them were asked for."""

    asked: ClassVar[list[list[int]]] = []

    def only(self, sources):
        self.asked.append(list(sources))
        return super().only(sources)


def test_parts_for_runs_are_kept_as_long_as_they_have_no_more_rows_than_the_batch():
    """Of three sources with two rows each; the oldest go first."""
    encoded = Counted({"states": np.array([[5.0], [6.0], [7.0]], np.float32)})
    session, asked = SourceSession(Session(), encoded), encoded.asked
    asked.clear()

    def run(rows):
        session.io_binding_of(np.array(rows), 6)

    run([0, 1])
    run([2, 3, 4, 5])
    # Six rows: both are there.
    run([0, 1])
    run([2, 3, 4, 5])
    assert asked == [[0, 0], [1, 1, 2, 2]]
    run([4])
    run([2, 3, 4, 5])
    assert asked[2:] == [[2]]
    run([0, 1])
    assert asked[3:] == [[0, 0]]
