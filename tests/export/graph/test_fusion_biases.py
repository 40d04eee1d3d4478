"""Biases move into the activation or the attention behind them, where nothing else reads the sum."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.onnx_text import left, model_of, run
from triform.export.graph.fusion_biases import fuse_biases

BIAS = "<float[4] b = {1.0, -2.0, 0.5, 3.0}, float[1, 4] row = {1.0, -2.0, 0.5, 3.0}>"


@pytest.mark.parametrize(
    ("body", "outputs", "expected"),
    [
        ("a = Add(x, b) y = Gelu(a)", "y", ["BiasGelu"]),
        ('a = Add(x, b) y = Gelu<approximate="none">(a)', "y", ["BiasGelu"]),
        ('a = Add(x, b) y = Gelu<approximate="tanh">(a)', "y", ["FastGelu"]),
        # Another activation, a sum that others read, too, or that is no sum with a vector of weights.
        ("a = Add(x, b) y = Tanh(a)", "y", ["Add", "Tanh"]),
        ("a = Add(x, b) y = Gelu(a) z = Neg(a)", "y, float z", ["Add", "Gelu", "Neg"]),
        ("a = Add(x, b) y = Gelu(a)", "y, float[2, 4] a", ["Add", "Gelu"]),
        ("a = Add(x, row) y = Gelu(a)", "y", ["Add", "Gelu"]),
        ("c = Neg(b) a = Add(x, c) y = Gelu(a)", "y", ["Neg", "Add", "Gelu"]),
        ("a = Add(x, x) y = Gelu(a)", "y", ["Add", "Gelu"]),
        # The second sum is the only one that an activation follows.
        ("c = Add(x, b) a = Add(c, b) y = Gelu(a)", "y", ["Add", "BiasGelu"]),
    ],
)
def test_activations(body, outputs, expected):
    model = model_of(f"(float[2, 4] x) => (float {outputs}) {BIAS} {{ {body} }}")
    before = run(model)
    fuse_biases(model)
    assert left(model) == expected
    for found, value in zip(run(model), before, strict=True):
        np.testing.assert_allclose(found, value, atol=2e-4 if "FastGelu" in expected else 1e-6)


ATTENTION = "com.microsoft.MultiHeadAttention<num_heads=2>"
WIDE = "<float[12] b = {1.0, -2.0, 0.5, 3.0, 1.0, 2.0, -0.5, 3.0, 0.0, 2.0, 0.5, -3.0}, float[12] other = " + (
    "{1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}>"
)


@pytest.mark.parametrize(
    ("split", "call", "more", "moved"),
    [
        ("q, k, v = Split<axis=-1, num_outputs=3>(a)", "q, k, v", "", True),
        ("q, k, v = Split<axis=-1, num_outputs=3>(a)", 'q, k, v, "", mask', "", True),
        ("q, k, v = Split<axis=-1, num_outputs=3>(a)", "q, k, v, other", "", False),
        ("q, k, v = Split<axis=-1, num_outputs=3>(a)", "k, q, v", "", False),
        ("q, k, v = Split<axis=-1, num_outputs=3>(a)", "q, k, v", "z = Neg(v)", False),
        ("q, k, v = Split<axis=-1, num_outputs=3>(a)", "q, k, v", "z = Neg(q)", False),
    ],
)
def test_attention(split, call, more, moved):
    """Attention adds the biases of its three inputs itself, which stand one behind the other."""
    outputs = "float y, float z" if more else "float y"
    inputs = "float[2, 3, 12] x" + (", int32[2, 3] mask" if "mask" in call else "")
    model = model_of(f"({inputs}) => ({outputs}) {WIDE} {{ a = Add(x, b) {split} y = {ATTENTION}({call}) {more} }}")
    fuse_biases(model)
    attention = next(node for node in model.graph if node.op_type == "MultiHeadAttention")
    assert ("Add" not in left(model)) == moved
    if moved:
        assert attention.inputs[3].name == "b" and [value.name for value in attention.inputs[:3]] == ["q", "k", "v"]
        assert next(node for node in model.graph if node.op_type == "Split").inputs[0].name == "x"
        assert [value.name for value in attention.inputs[4:]] == (["mask"] if "mask" in call else [])


def test_the_moved_biases_are_added():
    text = f"(float[2, 3, 12] x) => (float y) {WIDE} {{ a = Add(x, b) q, k, v = Split<axis=-1, num_outputs=3>(a) "
    model = model_of(text + f"y = {ATTENTION}(q, k, v) }}")
    before = run(model)
    fuse_biases(model)
    assert left(model) == ["Split", "MultiHeadAttention"]
    np.testing.assert_allclose(run(model)[0], before[0], atol=1e-5)


def test_other_users_of_the_parts():
    """Two parts, and three of which something else than attention reads the first."""
    two = f"(float[2, 3, 12] x) => (float y) {WIDE} {{ a = Add(x, b) q, k = Split<axis=-1, num_outputs=2>(a) "
    three = f"(float[2, 3, 12] x) => (float y) {WIDE} {{ a = Add(x, b) q, k, v = Split<axis=-1, num_outputs=3>(a) "
    for text in (
        two + "y = Mul(q, k) }",
        two + f"y = {ATTENTION}(q, k, k) }}",
        three + "c = Mul(q, k) y = Mul(c, v) }",
    ):
        model = model_of(text)
        before = left(model)
        fuse_biases(model)
        assert left(model) == before
