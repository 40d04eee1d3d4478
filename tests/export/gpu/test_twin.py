"""A graph of float32 that rounds as one of 16-bit floats does, against PyTorch's own 16-bit floats."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from triform.export.gpu.twin import allowed_error, rounded_twin

HEADER = '<ir_version: 10, opset_import: ["" : 21]> g '


@pytest.mark.parametrize(
    ("operators", "dtype", "expected"),
    [(1, "float16", 4 / 2048), (9, "float16", 12 / 2048), (1, "bfloat16", 4 / 256), (16, "bfloat16", 16 / 256)],
)
def test_what_rounding_explains(operators, dtype, expected):
    assert allowed_error(operators, dtype) == expected


def twin_of(text, dtype):
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEADER + text)))
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(torch.ones(4, dtype=getattr(torch, dtype)), name=value.name)
    before = [node.op_type for node in model.graph]
    twin = rounded_twin(model, dtype)
    assert [node.op_type for node in model.graph] == before
    assert model.graph.inputs[0].dtype == {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}[dtype]
    return twin


def run(twin, x):
    session = ort.InferenceSession(ir.to_proto(twin).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_each_result_is_rounded(dtype):
    """The product, the sum and the difference are rounded for their readers; the last one is given as it is."""
    kind = getattr(torch, dtype)
    text = (
        f"({dtype}[3, 4] x) => ({dtype}[4, 3] y, {dtype}[3, 4] z) <{dtype}[4] w = {{0, 0, 0, 0}}> "
        "{ a = Mul(x, x) b = Transpose<perm=[1, 0]>(a) c = Add(b, b) d = Mul(c, c) y = Sub(d, b) "
        "e = Add(x, w) z = Mul(e, e) }"
    )
    twin = twin_of(text, dtype)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)).to(kind)
    square = x * x
    double = square.T + square.T
    more = x + torch.ones(4, dtype=kind)
    found = run(twin, x.float().numpy())
    expected = [(double * double).float() - square.T.float(), more.float() * more.float()]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    # Numbers that are only moved are rounded before.
    kinds = [node.op_type for node in twin.graph]
    assert kinds.count("Cast") == 2 * 4 and kinds.count("Transpose") == 1


def test_overflow_is_that_of_16_bits():
    twin = twin_of("(float16[1] x) => (float16[1] y) { a = Mul(x, x) b = Sqrt(a) y = Sqrt(b) }", "float16")
    assert run(twin, np.array([300.0], np.float32))[0].tolist() == [np.inf]
    assert run(twin, np.array([16.0], np.float32))[0].tolist() == [4.0]


def test_fillings_and_conversions():
    """What was float32 before stays as exact. Of the number that fills an array onnx's notation has the bits."""
    text = (
        "(float16[2] x, int64[1] n) => (float[2] y, float16[2] z) { a = ConstantOfShape<value = float16[1] {14336}>(n) "
        "b = Cast<to=1>(x) c = Mul(b, b) d = Cast<to=10>(c) y = Mul(c, c) e = Add(d, a) z = Neg(e) }"
    )
    twin = twin_of(text, "float16")
    x = torch.tensor([1.2345, 0.7]).half()
    session = ort.InferenceSession(ir.to_proto(twin).SerializeToString(), providers=["CPUExecutionProvider"])
    y, z = session.run(None, {"x": x.float().numpy(), "n": np.array([2])})
    squares = x.float() * x.float()
    np.testing.assert_array_equal(y, (squares * squares).numpy())
    np.testing.assert_array_equal(z, -(squares.half() + 0.5).float().numpy())
