"""A step for GPUs on a small graph that gives back what it was told: what is sent, when, and what is recorded."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.helpers.fake_device import NAME, FakeDevice
from triform.runtime.graphs.device.memory import Place
from triform.runtime.graphs.device.ranking import Ranking
from triform.runtime.graphs.device.step import DeviceStep

VOCABULARY = 50
FLOAT, INT32, INT64, HALF = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT16


def make_graph(lengths=True):
    """Logits of a row are -(token - t)² of the token t at its place; the cache gets 1 more with each run."""
    info = helper.make_tensor_value_info
    inputs = [
        info("input_ids", INT64, ["batch", "sequence"]), info("logits_rows", INT64, ["rows"]),
        info("seqlens_k", INT32, ["batch"]), info("total_sequence_length", INT32, [1]),
        info("past_key_values.0.key", HALF, ["batch", 1, "capacity", 1]),
        *([info("past_lengths", INT32, ["batch"])] if lengths else []),
    ]  # fmt: skip
    outputs = [
        info("logits", FLOAT, ["rows", 1, VOCABULARY]), info("next_ids", INT64, ["rows", 1]),
        info("told", FLOAT, ["batch", 3]), info("present.0.key", HALF, ["batch", 1, "capacity", 1]),
    ]  # fmt: skip
    constants = [
        helper.make_tensor("flat", INT64, [1], [-1]), helper.make_tensor("column", INT64, [2], [-1, 1]),
        helper.make_tensor("cells", INT64, [3], [-1, 1, 1]), helper.make_tensor("one", HALF, [], [1.0]),
        helper.make_tensor("tokens", FLOAT, [1, 1, VOCABULARY], np.arange(VOCABULARY, dtype=np.float32)),
        helper.make_tensor("zero", INT32, [], [0]),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["input_ids", "flat"], ["ids"]),
        helper.make_node("Gather", ["ids", "logits_rows"], ["chosen"]),
        helper.make_node("Cast", ["chosen"], ["token"], to=FLOAT),
        helper.make_node("Reshape", ["token", "cells"], ["target"]),
        helper.make_node("Sub", ["tokens", "target"], ["distance"]),
        helper.make_node("Mul", ["distance", "distance"], ["square"]),
        helper.make_node("Neg", ["square"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["next_ids"], axis=2, keepdims=0),
        helper.make_node("Mul", ["seqlens_k", "zero"], ["none"]),
        helper.make_node("Add", ["none", "total_sequence_length"], ["total"]),
        helper.make_node("Add", ["none", "past_lengths" if lengths else "zero"], ["past"]),
    ]
    for name in ("past", "seqlens_k", "total"):
        nodes += [
            helper.make_node("Reshape", [name, "column"], [f"{name}.column"]),
            helper.make_node("Cast", [f"{name}.column"], [f"{name}.told"], to=FLOAT),
        ]
    nodes += [
        helper.make_node("Concat", [f"{name}.told" for name in ("past", "seqlens_k", "total")], ["told"], axis=1),
        helper.make_node("Add", ["past_key_values.0.key", "one"], ["present.0.key"]),
    ]
    graph = helper.make_graph(nodes, "told", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


class Session:
    """A session that says whether it can record, and remembers what was asked of each run."""

    def __init__(self, recordable, **graph):
        self._session = onnxruntime.InferenceSession(make_graph(**graph), providers=["CPUExecutionProvider"])
        self._recordable, self.recordings, self.bound = recordable, [], []

    def get_inputs(self):
        return self._session.get_inputs()

    def get_providers(self):
        return self._session.get_providers()

    def get_provider_options(self):
        return {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}} if self._recordable else {}

    def io_binding(self):
        binding = self._session.io_binding()
        bind = binding.bind_ortvalue_input

        def noted(name, value):
            self.bound.append(name)
            bind(name, value)

        binding.bind_ortvalue_input = noted
        return binding

    def run_with_iobinding(self, binding, options):
        try:
            self.recordings.append(options.get_run_config_entry("gpu_graph_id"))
        except Exception:
            self.recordings.append(None)
        self._session.run_with_iobinding(binding, None)


class Made:
    """A step with its cache of 8 tokens a row."""

    def __init__(self, recordable, shape=(2, 3), wanted=2, repeated=False, **graph):
        self.device, self.session = FakeDevice(NAME), Session(recordable, **graph)
        ranking = Ranking(self.session, self.device)
        self.step = DeviceStep(
            self.session, self.device, ranking, "float16", shape, wanted, VOCABULARY, repeated=repeated
        )
        self.step.add_output("told", (shape[0], 3))
        self.cache = self.device.upload(np.zeros((shape[0], 1, 8, 1), np.float16))
        place = Place(self.cache.data_ptr(), (shape[0], 1, 8, 1))
        self.step.bind_state("past_key_values.0.key", "present.0.key", place)

    def run(self):
        before = self.device.sent
        self.step.run(self.session)
        return self.device.sent - before


def test_a_prompt_of_two_rows():
    made = Made(False)
    step = made.step
    assert (step.new_lengths.tolist(), step.past_lengths.tolist()) == ([3, 3], [0, 0])
    step.input_ids[:] = [[10, 11, 12], [20, 21, 22]]
    step.logits_positions[:] = [[0, 2], [1, 2]]
    step.new_lengths[:] = [3, 2]
    step.past_lengths[:] = [4, 1]
    made.run()
    # The place of the last token of each row, and the most tokens that any row has.
    assert step.outputs["told"].tolist() == [[4, 6, 7], [1, 2, 7]] and list(step.outputs) == ["told"]
    expected = -np.square(np.arange(VOCABULARY) - np.array([[10, 12], [21, 22]])[:, :, None])
    np.testing.assert_array_equal(step.logits, expected)
    assert step.scores(None).shape == (2, 2, VOCABULARY)
    before = made.device.fetched
    assert [[row.best for row in rows] for rows in step.scores(1)] == [[10, 12], [21, 22]]
    # A number of eight bytes for each place.
    assert made.device.fetched - before == 4 * 8
    best = step.scores(3)[1][0]
    assert (best.best, best.tokens.tolist(), best.logits.tolist()) == (21, [20, 21, 22], [-1, 0, -1])
    two = step.scores(2)[0][1]
    assert two.best == 12 and two.tokens.shape == (2,) and 12 in two.tokens.tolist()
    assert (made.cache.numpy() == 1).all()


def test_only_what_changed_is_sent():
    """Bytes: 8 for each token and place, 4 for each length; the total is read where it is."""
    made = Made(False, shape=(2, 1), wanted=1)
    step = made.step
    assert made.run() == 0
    step.input_ids[:] = [[5], [6]]
    assert made.run() == 2 * 8
    assert made.session.bound.count("input_ids") == 2
    step.past_lengths[:] = [1, 1]
    assert made.run() == 2 * 4 + 2 * 4
    assert step.outputs["told"].tolist() == [[1, 1, 2], [1, 1, 2]]
    assert made.run() == 0
    assert made.session.bound.count("logits_rows") == 1 and made.session.bound.count("past_lengths") == 2


def test_a_graph_that_does_not_take_the_lengths_is_not_told():
    made = Made(False, lengths=False)
    made.step.past_lengths[:] = [2, 3]
    # seqlens_k alone.
    assert made.run() == 2 * 4
    assert made.step.outputs["told"].tolist() == [[0, 4, 6], [0, 5, 6]]
    assert "past_lengths" not in made.session.bound


@pytest.mark.parametrize(
    ("recordable", "repeated", "total", "recorded"),
    [
        (False, False, 3, [None] * 6), (False, True, 3, [None] * 6), (True, False, 3, ["-1"] * 6),
        # The whole capacity, from the start; three runs go before a recording.
        (True, True, 8, ["-1"] * 3),
    ],
)  # fmt: skip
def test_what_is_recorded(recordable, repeated, total, recorded):
    made = Made(recordable, shape=(2, 1), wanted=1, repeated=repeated)
    for past in range(2, 8):
        made.step.past_lengths[:] = past
        made.run()
        expected = total if total == 8 else past + 1
        assert made.step.outputs["told"][:, 2].tolist() == [expected] * 2
    assert made.session.recordings[: len(recorded)] == recorded
    if recordable:
        # Addresses of inputs stay: they are in the recording.
        assert set(made.session.bound) and max(map(made.session.bound.count, made.session.bound)) == 1
    if recordable and repeated:
        (number,) = set(made.session.recordings[3:])
        assert int(number) >= 1
        another = Made(True, shape=(2, 1), wanted=1, repeated=True)
        for _ in range(4):
            another.run()
        # A number is one step's.
        assert int(another.session.recordings[3]) == int(number) + 1
