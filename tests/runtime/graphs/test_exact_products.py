"""Products of 8-bit numbers whose sums need more than 16 bits."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from triform.runtime.graphs.exact_products import make_products_exact
from triform.runtime.graphs.session import open_session
from triform.runtime.machine import processor

ENTRY = "session.x64quantprecision"


@pytest.mark.parametrize(
    ("flags", "entry"),
    [
        ("fpu avx2 avx512f", "1"),
        ("fpu avx2 avx512f avx512_vnni", None),
        ("fpu avx2 avx_vnni", None),
        ("fpu avx2 avx512f avx512_vnni amx_int8", None),
    ],
)
def test_asked_for_where_instructions_lack(monkeypatch, tmp_path, flags, entry):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert entry_of() == entry


def test_asked_for_where_the_system_does_not_say(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "absent")
    assert entry_of() == "1"


def entry_of() -> str | None:
    settings = onnxruntime.SessionOptions()
    make_products_exact(settings)
    try:
        return settings.get_session_config_entry(ENTRY)
    except RuntimeError:
        return None


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_sums_are_exact_on_this_processor(tmp_path, rows):
    """Two products of 255 and 127 are 64,770, which 16 signed bits do not hold."""
    path = tmp_path / "product.onnx"
    weights = np.where(np.arange(64 * 48).reshape(64, 48) % 5 == 4, -128, 127).astype(np.int8)
    onnx.save(product(weights), path)
    integers = np.full((rows, 64), 255, np.uint8)
    integers[:, 7] = 1
    (result,) = open_session(path, provider="cpu").run(None, {"x": integers})
    assert np.array_equal(result, integers.astype(np.int64) @ weights.astype(np.int64))


def product(weights):
    made = onnx.helper.make_node("MatMulInteger", ["x", "weights"], ["y"])
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["rows", weights.shape[0]])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, ["rows", weights.shape[1]])]
    graph = onnx.helper.make_graph(
        [made], "product", inputs, outputs, [onnx.numpy_helper.from_array(weights, "weights")]
    )
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])
