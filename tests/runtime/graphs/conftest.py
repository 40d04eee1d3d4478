"""A graph of one addition, for tests of sessions and providers."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper, save


@pytest.fixture
def graph(tmp_path):
    """Doubles a vector."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    made = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "double.onnx")
    return tmp_path / "double.onnx"
