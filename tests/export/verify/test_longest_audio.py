"""How long a recording may be that an encoder reads at once: here one with a table of positions, or with none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from triform.export.runners import EncoderRunner
from triform.export.verify.longest_audio import with_longest
from triform.runtime.bundle.media_info import AudioInfo

BANDS, POSITIONS = 3, 250
# Frames of 400 samples, 160 samples apart, so that 250 of them are 2.5 s.
INFO = AudioInfo("fbank", 16000, BANDS, 0.0, win_length=400, n_fft=512, hop_length=160)
SAMPLE = {"input_features": np.ones((90, BANDS), np.float32), "attention_mask": np.ones(90, np.int64)}


def encoder(folder, nodes):
    """A graph of the nodes, from `input_features` and `attention_mask` to `states`."""
    features = helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["batch", "frames", BANDS])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "frames"])
    states = helper.make_tensor_value_info("states", TensorProto.FLOAT, None)
    table = numpy_helper.from_array(np.zeros((POSITIONS, BANDS), np.float32), "table")
    axis = numpy_helper.from_array(np.array(1, np.int64), "axis")
    graph = helper.make_graph(nodes, "encoder", [features, mask], [states], [table, axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "encoder.onnx")
    return EncoderRunner(folder / "encoder.onnx", 1)


def test_a_table_of_positions_limits_it(tmp_path):
    nodes = [
        helper.make_node("CumSum", ["attention_mask", "axis"], ["places"], exclusive=1),
        helper.make_node("Gather", ["table", "places"], ["positions"]),
        helper.make_node("Add", ["input_features", "positions"], ["states"]),
    ]
    # 0.1 s of the search, and a frame of 25 ms, less than the 2.5 s that the table has.
    assert with_longest(INFO, encoder(tmp_path, nodes), SAMPLE).longest == pytest.approx(2.4, abs=0.101)


def test_what_has_no_limit_reads_whole_pieces(tmp_path):
    nodes = [helper.make_node("Identity", ["input_features"], ["states"])]
    assert with_longest(INFO, encoder(tmp_path, nodes), SAMPLE) == INFO
