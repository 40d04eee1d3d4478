"""What a graph took as inputs, computed from the lengths of its rows: compared with numpy, row by row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from triform.export.onnx_import.decoders.lengths import Lengths
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph

# Three tokens more behind a past of four; rows have 4, 2 and 0 tokens in it.
LENGTHS, PAST, MORE = np.array([4, 2, 0], np.int32), 4, 3


def supplied(folder, name, shape, *, in_place, kind=TensorProto.INT64, lengths=LENGTHS, past=PAST):
    """What a graph that gives an input back gives once it is supplied."""
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, ["batch", 2, "past", 4]),
        helper.make_tensor_value_info(name, kind, shape),
    ]
    nodes = [
        helper.make_node("Identity", [name], ["out"]),
        helper.make_node("Identity", ["input_ids"], ["ids"]),
        helper.make_node("Identity", ["past_key_values.0.key"], ["key"]),
    ]
    outputs = [
        helper.make_tensor_value_info("out", kind, shape),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("key", TensorProto.FLOAT, ["batch", 2, "past", 4]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = ir.from_proto(proto)
    value = next(value for value in model.graph.inputs if value.name == name)
    Lengths(model.graph, in_place=in_place).supply(name, value)
    assert [value.name for value in model.graph.inputs] == ["input_ids", "past_key_values.0.key", "past_lengths"]
    write_graph(model, folder / "g.onnx")
    feeds = {
        "input_ids": np.zeros((len(lengths), MORE), np.int64),
        "past_key_values.0.key": np.zeros((len(lengths), 2, past, 4), np.float32),
        "past_lengths": lengths,
    }
    return EncoderRunner(folder / "g.onnx", 1).run(feeds)["out"]


def test_rows_at_the_end_of_the_past(tmp_path):
    found = supplied(tmp_path, "attention_mask", ["batch", "all"], in_place=False)
    assert found.tolist() == [[1] * 7, [0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1]]
    assert found.dtype == np.int64


def test_rows_at_the_beginning_of_a_cache_that_grows_in_place(tmp_path):
    """The past has room for nine tokens; the longest row has four."""
    found = supplied(tmp_path, "attention_mask", ["batch", "all"], in_place=True, past=9)
    assert found.tolist() == [[1] * 7, [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_positions(in_place, kind, tmp_path):
    found = supplied(tmp_path, "position_ids", ["batch", "sequence"], in_place=in_place, kind=kind, past=9)
    assert found.tolist() == [[4, 5, 6], [2, 3, 4], [0, 1, 2]]
    assert found.dtype == helper.tensor_dtype_to_np_dtype(kind)


@pytest.mark.parametrize(("in_place", "first"), [(False, 9), (True, 4)])
def test_places(in_place, first, tmp_path):
    found = supplied(tmp_path, "cache_position", ["sequence"], in_place=in_place, past=9)
    assert found.tolist() == [first, first + 1, first + 2]


@pytest.mark.parametrize("past", [0, 1, 5])
@pytest.mark.parametrize("shape", [[], [1]])
def test_whether_there_is_a_past(past, shape, tmp_path):
    lengths = np.full(2, past, np.int32)
    found = supplied(
        tmp_path, "use_cache_branch", shape, in_place=False, kind=TensorProto.BOOL, lengths=lengths, past=past
    )
    assert found.reshape(-1).tolist() == [past > 0]
    assert (found.dtype, found.shape) == (np.bool_, tuple(shape))


def test_all_logits(tmp_path):
    assert supplied(tmp_path, "num_logits_to_keep", [], in_place=False).tolist() == 0
