"""Each pass over small graphs: what it leaves, and that ONNX Runtime and numpy compute the same from it as before."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.onnx_text import left, model_of, run
from triform.export.graph.fusion import (
    cancel_layout_changes,
    feed_packed_qkv,
    fuse,
    fuse_silu,
    fuse_skip_norms,
    join_slices,
    lower_rms_norm,
    normalize_before_transposing,
)


def agree(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Transpose<perm=[1, 0, 2]>(x) b = Transpose<perm=[1, 0, 2]>(a) y = Neg(b)", ["Neg"]),
        ("a = Transpose<perm=[1, 2, 0]>(x) b = Transpose<perm=[2, 0, 1]>(a) y = Neg(b)", ["Neg"]),
        ("a = Transpose<perm=[1, 2, 0]>(x) b = Transpose<perm=[0, 2, 1]>(a) y = Neg(b)", ["Transpose", "Neg"]),
        ("a = Transpose<perm=[1, 2, 0]>(x) b = Transpose<perm=[1, 0, 2]>(a) y = Transpose<perm=[0, 2, 1]>(b)",
         ["Transpose"]),
        ("a = Transpose<perm=[0, 1, 2]>(x) y = Neg(a)", ["Neg"]),
        # What stands between them stays, and what others read.
        ("a = Transpose<perm=[1, 0, 2]>(x) b = Neg(a) y = Transpose<perm=[1, 0, 2]>(b)",
         ["Transpose", "Neg", "Transpose"]),
        ("a = Identity(x) b = Neg(a) y = Identity(b)", ["Neg", "Identity"]),
        ("s = Flat t = Constant<value_ints=[4, 6]>() a = Reshape(x, s) b = Reshape(a, t) y = Neg(b)",
         ["Constant", "Reshape", "Neg"]),
        ("s = Flat t = Whole a = Reshape(x, s) b = Reshape(a, t) y = Neg(b)",
         ["Neg"]),
        ("s = Whole a = Reshape(x, s) y = Neg(a)", ["Neg"]),
        ("s = Flat a = Neg(x) y = Reshape(a, s)", ["Constant", "Neg", "Reshape"]),
        # One that cancels only when others are gone.
        ("s = Flat t = Whole a = Reshape(x, s)"
         " b = Transpose<perm=[1, 0]>(a) c = Transpose<perm=[1, 0]>(b) d = Reshape(c, t) y = Neg(d)", ["Neg"]),
        ("a = Transpose<perm=[1, 0, 2]>(x) b = Identity(a) c = Transpose<perm=[1, 0, 2]>(b) y = Neg(c)", ["Neg"]),
    ],
)  # fmt: skip
def test_layout_changes_that_cancel(body, expected):
    body = body.replace("Flat", "Constant<value_ints=[6, 4]>()").replace("Whole", "Constant<value_ints=[2, 3, 4]>()")
    model = model_of(f"(float[2, 3, 4] x) => (float y) {{ {body} }}")
    before = run(model)
    cancel_layout_changes(model)
    assert left(model) == expected
    agree(run(model), before)


def constants(**numbers):
    return " ".join(f"{name} = Constant<value_ints={list(values)}>()" for name, values in numbers.items())


@pytest.mark.parametrize(
    ("body", "joined"),
    [
        (constants(s=[4, 8]) + " a, b = Split<axis=-1>(x, s) c = Concat<axis=-1>(a, b) y = Neg(c)", True),
        (constants(s=[4, 8]) + " a, b = Split<axis=-1>(x, s) c = Concat<axis=-1>(b, a) y = Neg(c)", False),
        (constants(s=[4, 8]) + " a, b = Split<axis=-1>(x, s) c = Concat<axis=-1>(a) d = Neg(b) y = Neg(c)", False),
        # Of two values, of which the second has the same shape.
        (constants(s=[4, 8]) + " z = Neg(x) a, b = Split<axis=-1>(x, s) d, e = Split<axis=-1>(z, s)"
         " c = Concat<axis=-1>(a, e) y = Neg(c)", False),
        (constants(s=[0], e=[5], f=[12], n=[1]) + " z = Neg(x) a = Slice(x, s, e, n) b = Slice(z, e, f, n)"
         " c = Concat<axis=-1>(a, b) y = Neg(c)", False),
        (constants(s=[0], e=[5], n=[1]) + " a = Slice(x, s, e, n) b = Neg(a) c = Concat<axis=-1>(a, b)"
         " y = Neg(c)", False),
        # A slice that is everything.
        (constants(s=[0], e=[99]) + " a = Slice(x, s, e) y = Neg(a)", True),
        # Starts and ends from behind, and an end beyond the last one.
        (constants(s=[0], e=[-7], f=[99], n=[-1]) + " a = Slice(x, s, e, n) b = Slice(x, e, f, n)"
         " c = Concat<axis=-1>(a, b) y = Neg(c)", True),
        (constants(s=[-12], e=[5], f=[12], n=[1]) + " a = Slice(x, s, e, n) b = Slice(x, e, f, n)"
         " c = Concat<axis=-1>(a, b) y = Neg(c)", True),
        (constants(s=[0], e=[5], f=[0], n=[1]) + " a = Slice(x, s, e, n) b = Slice(x, s, f, n) d = Concat<axis=1>(b, a)"
         " c = Concat<axis=-1>(d, d) y = Neg(c)", False),
        # Steps of one, and of two.
        (constants(s=[0], e=[5], f=[12], n=[1], m=[1]) + " a = Slice(x, s, e, n, m) b = Slice(x, e, f, n, m)"
         " c = Concat<axis=-1>(a, b) y = Neg(c)", True),
        (constants(s=[0], e=[6], f=[12], n=[1], m=[2]) + " a = Slice(x, s, e, n, m) b = Slice(x, e, f, n, m)"
         " d = Concat<axis=-1>(a, b) c = Concat<axis=-1>(d, d) y = Neg(c)", False),
        # Along the other axis, and along both.
        (constants(s=[0], e=[1], f=[2], n=[0]) + " a = Slice(x, s, e, n) b = Slice(x, e, f, n)"
         " c = Concat<axis=0>(a, b) y = Neg(c)", False),
        (constants(s=[0, 0], e=[2, 5], f=[2, 12], g=[0, 5], n=[0, 1]) + " a = Slice(x, s, e, n) b = Slice(x, g, f, n)"
         " c = Concat<axis=1>(a, b) y = Neg(c)", False),
    ],
)  # fmt: skip
def test_slices_and_parts_in_order_are_the_whole(body, joined):
    model = model_of(f"(float[2, 12] x) => (float y) {{ {body} }}")
    before = run(model)
    join_slices(model)
    assert (left(model)[-1:] == ["Neg"] and not {"Concat", "Slice"} & set(left(model))) == joined
    agree(run(model), before)


@pytest.mark.parametrize(
    ("perm", "axis", "moved"),
    [
        ([0, 2, 1, 3], "axis=-1", True), ([0, 2, 1, 3], "axis=3", True), ([0, 2, 1, 3], "", True),
        ([0, 2, 1, 3], "axis=2", False), ([0, 1, 3, 2], "axis=-1", False), ([3, 2, 1, 0], "axis=-1", False),
        ([0, 3, 1, 2], "axis=-1", False),
    ],
)  # fmt: skip
def test_norms_over_the_last_axis_are_moved(perm, axis, moved):
    sizes = [(2, 3, 3, 3)[place] for place in perm]
    shape = sizes[2:] if axis == "axis=2" else sizes[-1:]
    scale = "s = ConstantOfShape<value = float[1] {2.0}>(n) n0 = Identity(x)"
    text = (
        f"(float[2, 3, 3, 3] x) => (float y) {{ n = Constant<value_ints={shape}>() {scale} "
        f"t = Transpose<perm={perm}>(n0) y = LayerNormalization{axis and f'<{axis}>'}(t, s) }}"
    )
    model = model_of(text)
    before = run(model)
    normalize_before_transposing(model)
    assert left(model)[-1] == ("Transpose" if moved else "LayerNormalization")
    assert len(model.graph) == 5
    agree(run(model), before)


def test_norms_without_a_transpose_stay():
    model = model_of("(float[2, 3] x, float[3] s) => (float y) { a = Neg(x) y = LayerNormalization(a, s) }")
    normalize_before_transposing(model)
    assert left(model) == ["Neg", "LayerNormalization"]


@pytest.mark.parametrize(
    ("product", "fused"), [("Mul(x, s)", True), ("Mul(s, x)", True), ("Mul(z, s)", False), ("Mul(s, s)", False)]
)
def test_silu(product, fused):
    model = model_of(f"(float[2, 3] x, float[2, 3] z) => (float y) {{ s = Sigmoid(x) y = {product} }}")
    before = run(model)
    fuse_silu(model)
    assert left(model) == (["QuickGelu"] if fused else ["Sigmoid", "Mul"])
    agree(run(model), before)


def test_rms_norms_are_over_the_last_axis():
    model = model_of("(float[2, 3, 4] x, float[4] s) => (float[2, 3, 4] y) { y = RMSNorm<axis=-1, epsilon=0.5>(x, s) }")
    lower_rms_norm(model)
    random = np.random.default_rng(0)
    x, scale = random.normal(size=(2, 3, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    agree(run(model), [x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 0.5) * scale])


@pytest.mark.parametrize(
    ("x", "z", "fused"),
    [
        ("2, 3, 4", "2, 3, 4", True),
        ("2, 3, 4", "4", False),
        ("3, 4", "3, 4", False),
        ("1, 2, 3, 4", "1, 2, 3, 4", False),
    ],
)
def test_a_residual_addition_joins_the_norm_that_follows(x, z, fused):
    """The sum is read by others, too."""
    model = model_of(
        f"(float[{x}] x, float[{z}] z, float[4] s) => (float y, float w) {{ a = Add(x, z) "
        f"b = SimplifiedLayerNormalization<axis=-1, epsilon=0.5, stash_type=1>(a, s) y = Neg(b) w = Abs(a) }}"
    )
    before = run(model)
    fuse_skip_norms(model)
    assert ("SkipSimplifiedLayerNormalization" in left(model)) == fused
    assert len(model.graph) == (3 if fused else 4)
    agree(run(model), before)


@pytest.mark.parametrize(
    ("count", "order", "handed_over"), [(3, "a, b, c", True), (3, "c, b, a", False), (3, "a, b, b", False)]
)
def test_parts_of_a_projection_in_another_order(count, order, handed_over):
    model = model_of(
        "(float[1, 4, 36] x) => (float y) { a, b, c = Split<axis=-1, num_outputs=3>(x) "
        f"y = com.microsoft.GroupQueryAttention({order}) }}"
    )
    feed_packed_qkv(model)
    assert (left(model) == ["GroupQueryAttention"]) == handed_over


def test_a_projection_in_four_parts_stays():
    model = model_of(
        "(float[1, 4, 36] x) => (float y) { a, b, c, d = Split<axis=-1, num_outputs=4>(x) "
        "y = com.microsoft.GroupQueryAttention(a, b, c) }"
    )
    feed_packed_qkv(model)
    assert left(model) == ["Split", "GroupQueryAttention"]


def test_a_weight_keeps_its_name_and_other_constants_are_folded():
    """The transpose of a matrix that is multiplied by is left to `find_linears`, and not computed in advance."""
    model = model_of(
        "(float[2, 2] x) => (float y) <float[2, 2] w = {1.0, 2.0, 3.0, 4.0}, float[2, 2] v = {5.0, 6.0, 7.0, 8.0}> "
        "{ t = Transpose<perm=[1, 0]>(w) a = MatMul(x, t) u = Transpose<perm=[1, 0]>(v) y = Add(a, u) }"
    )
    before = run(model)
    weight = model.graph.initializers["w"]
    fuse(model)
    assert "Transpose" not in left(model)
    assert weight.uses() and "v" not in model.graph.initializers
    linear = next(iter(weight.uses())).node
    folded = linear.outputs[0].uses()[0].node.inputs[1]
    assert folded.const_value.numpy().tolist() == [[5.0, 7.0], [6.0, 8.0]]
    x = np.random.default_rng(0).normal(size=(2, 2)).astype(np.float32)
    agree(before, [x @ np.array([[1.0, 3.0], [2.0, 4.0]]) + np.array([[5.0, 7.0], [6.0, 8.0]])])
