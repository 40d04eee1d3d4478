"""Graphs that are read: which weights stay in their files, and which are refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from triform.export.onnx_import import layout
from triform.export.onnx_import.layout import read_graph
from triform.runtime.errors import ExportError


def saved(folder, location=None, inputs=True, outputs=True, **weights):
    """A graph that has these weights and uses none; all of them in a file of their own if `location` names one."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    nodes = [helper.make_node("Identity", ["x"], ["y"])] if inputs else []
    given = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value] if inputs else [], [result] if outputs else [], given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "m.onnx"
    if location is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


@pytest.mark.parametrize(("count", "outside"), [(1, False), (255, False), (256, True), (257, True)])
def test_small_weights_come_into_the_graph(count, outside, tmp_path):
    """Those of less than 1,024 bytes."""
    array = np.arange(count, dtype=np.float32)
    model = read_graph(saved(tmp_path, "m.data", w=array))
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor) is outside
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 6, 7, 19])
@pytest.mark.parametrize("location", [None, "m.data"])
def test_weights_that_are_no_numbers(dtype, place, location, tmp_path, monkeypatch):
    """Wherever they are, in whichever of the pieces that are looked at together; infinities are found in masks."""
    monkeypatch.setattr(layout, "_PIECE", 7)
    array = np.zeros((4, 5), dtype)
    array.flat[place] = np.inf
    read_graph(saved(tmp_path, location, w=array, ids=np.zeros(3, np.int64)))
    array.flat[place] = np.nan
    with pytest.raises(ExportError, match=r"m\.onnx: the weights 'w' are not all numbers; fetch the model again$"):
        read_graph(saved(tmp_path, location, v=np.zeros(2, np.float32), w=array))


def test_weights_of_no_numbers_at_all(tmp_path):
    read_graph(saved(tmp_path, w=np.zeros((0, 3), np.float32), v=np.array(1, np.float32)))


@pytest.mark.parametrize("location", ["../m.data", "/tmp/m.data", "sub/m.data", "..", ".", "", "a\\m.data"])
def test_weights_outside_the_folder(location, tmp_path):
    path = saved(tmp_path, "m.data", w=np.zeros(300, np.float32))
    model = onnx.load(path, load_external_data=False)
    [entry] = [entry for entry in model.graph.initializer[0].external_data if entry.key == "location"]
    entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"m\.onnx is unsafe: it has weights outside its folder, in "):
        read_graph(path)


def test_weights_that_are_missing_or_cut_off(tmp_path):
    path = saved(tmp_path, "m.data", w=np.zeros(300, np.float32))
    (tmp_path / "m.data").write_bytes(b"\0" * 100)
    with pytest.raises(ExportError, match=r"m\.onnx: the weights 'w' cannot be read \("):
        read_graph(path)
    (tmp_path / "m.data").unlink()
    with pytest.raises(ExportError, match=r"m\.onnx needs 'm\.data' beside it, which is missing$"):
        read_graph(path)


@pytest.mark.parametrize("lacking", ["inputs", "outputs"])
def test_what_is_no_model(lacking, tmp_path):
    with pytest.raises(ExportError, match=r"m\.onnx is not a model's graph: it has no inputs or no outputs$"):
        read_graph(saved(tmp_path, **{lacking: False}))
    path = tmp_path / "other.onnx"
    path.write_text("not a graph")
    with pytest.raises(ExportError, match=r"other\.onnx cannot be read as an ONNX graph \("):
        read_graph(path)
