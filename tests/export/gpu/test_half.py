"""What stays in float32 when a graph's floats become 16 bits wide, and how its twin rounds; numbers by arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from triform.export.gpu.half import to_half
from triform.export.gpu.skip_norms import fuse_skip_layer_norms
from triform.export.gpu.twin import allowed_error, rounded_twin
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.runtime.errors import ExportError

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])


def graph_of(nodes, constants, *, inputs=(X,), shape=("batch", 4), between=None):
    """A graph with the output y; `between` has the types of values that are not float32."""
    given = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    types = {name: TensorProto.FLOAT for node in nodes for name in node.output} | (between or {})
    known = [helper.make_tensor_value_info(name, type_, None) for name, type_ in types.items() if name != "y"]
    built = helper.make_graph(nodes, "g", list(inputs), outputs, given, value_info=known)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(built, opset_imports=imports, ir_version=10))


def rounded(model, folder, dtype="float16", **arrays):
    """The output of a graph that was made 16 bits wide, each result rounded."""
    to_half(model, dtype)
    write_graph(rounded_twin(model, dtype), folder / "twin.onnx")
    return EncoderRunner(folder / "twin.onnx", 1).run(arrays)["y"]


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def test_squares_do_not_overflow(tmp_path):
    # 300 squared is 90,000; the largest float16 is 65,504.
    x = np.full((1, 4), 300, np.float32)
    norm = [node("Mul", "x x", "s"), node("ReduceMean", "s axes", "m"), node("Sqrt", "m", "r"), node("Div", "x r", "y")]
    assert rounded(graph_of(norm, {"axes": np.array([-1])}), tmp_path, x=x).tolist() == [[1, 1, 1, 1]]
    power = [node("Pow", "x two", "s"), *norm[1:]]
    constants = {"axes": np.array([-1]), "two": np.float32(2)}
    assert rounded(graph_of(power, constants), tmp_path, x=x).tolist() == [[1, 1, 1, 1]]


def test_an_epsilon_does_not_vanish(tmp_path):
    # The smallest float16 is 6e-8; without the epsilon 0 would be divided by 0.
    nodes = [node("Abs", "x", "a"), node("Add", "a eps", "b"), node("Div", "x b", "y")]
    x = np.array([[0, 1, 0, -2]], np.float32)
    assert rounded(graph_of(nodes, {"eps": np.float32(1e-9)}), tmp_path, x=x).tolist() == [[0, 1, 0, -1]]


def test_positions_are_exact(tmp_path):
    # float16 has 11 bits: above 2,048 it holds even numbers only.
    inputs = (helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 4]),)
    nodes = [node("Cast", "ids", "p", to=TensorProto.FLOAT), node("Mul", "p f", "a"), node("Sin", "a", "y")]
    ids = np.array([[0, 2047, 2049, 4097]])
    given = rounded(graph_of(nodes, {"f": np.float32(0.5)}, inputs=inputs), tmp_path, ids=ids)
    np.testing.assert_allclose(given, np.sin(ids * 0.5), atol=2e-3)


def test_lengths_are_exact(tmp_path):
    # Frames of a recording, as torch.export counts them; the values between have no types.
    inputs = (helper.make_tensor_value_info("samples", TensorProto.INT64, ["batch", 4]),)
    nodes = [
        node("Cast", "samples", "s", to=TensorProto.FLOAT), node("Div", "s stride", "d"), node("Floor", "d", "f"),
        node("Cast", "f", "n", to=TensorProto.INT64), node("Cast", "n", "y", to=TensorProto.FLOAT),
    ]  # fmt: skip
    model = graph_of(nodes, {"stride": np.float32(320)}, inputs=inputs, between={"n": TensorProto.INT64})
    for made in model.graph:
        for output in made.outputs:
            if output.name in ("d", "f"):
                output.type = None
    # Above the largest float16, and one below and at multiples of 320.
    given = rounded(model, tmp_path, samples=np.array([[320 * 411 - 1, 320 * 411, 99_999, 319]]))
    assert given.tolist() == [[410, 411, 312, 0]]


def test_a_constant_of_wide_and_narrow_nodes(tmp_path):
    # 0.1 as the factor of a power stays 0.1; as that of a sum it becomes the nearest float16.
    nodes = [node("Pow", "x c", "p"), node("Add", "x c", "s"), node("Mul", "p zero", "n"), node("Add", "n s", "y")]
    constants = {"c": np.float32(0.1), "zero": np.float32(0)}
    model = graph_of(nodes, constants)
    given = rounded(model, tmp_path, x=np.zeros((1, 4), np.float32))
    assert given.tolist() == [[np.float16(0.1)] * 4]
    kinds = {value.dtype for name, value in model.graph.initializers.items() if name.startswith("c")}
    assert kinds == {ir.DataType.FLOAT, ir.DataType.FLOAT16}


def test_resize_keeps_its_scales(tmp_path):
    inputs = (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 2, 2]),)
    nodes = [node("Relu", "x", "a"), helper.make_node("Resize", ["a", "", "scales"], ["y"], mode="nearest")]
    constants = {"scales": np.array([1, 1, 2, 2], np.float32)}
    model = graph_of(nodes, constants, inputs=inputs, shape=["batch", 1, 4, 4])
    given = rounded(model, tmp_path, x=np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2))
    assert given[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert model.graph.initializers["scales"].dtype == ir.DataType.FLOAT


@pytest.mark.parametrize(("kind", "inputs"), [("Gather", "w i"), ("MatMul", "x w")])
def test_weights_that_16_bits_would_change_are_refused(kind, inputs):
    """Float16 ends at 65,504; a row of a table that no sample has would be another row without a word."""
    for largest, held in ((65504.0, True), (-65504.0, True), (65600.0, False), (-1e6, False)):
        weights = np.ones((4, 4), np.float32)
        weights[3, 1] = largest
        model = graph_of([node(kind, inputs, "y")], {"w": weights, "i": np.array([0])})
        if held:
            to_half(model, "float16")
            assert np.array_equal(model.graph.initializers["w"].const_value.numpy(), weights.astype(np.float16))
            continue
        with pytest.raises(ExportError, match=r"^w has numbers of up to .*, which float16 cannot hold; export with"):
            to_half(model, "float16")
        to_half(graph_of([node(kind, inputs, "y")], {"w": weights, "i": np.array([0])}), "bfloat16")


@pytest.mark.parametrize("lowest", [np.finfo(np.float32).min, -np.inf])
def test_masks_stay_finite(tmp_path, lowest):
    # A row that sees nothing: with an infinity its softmax would be 0 / 0.
    inputs = (helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", 4]),)
    nodes = [
        node("Cast", "mask", "m", to=TensorProto.FLOAT), node("Sub", "one m", "i"), node("Mul", "i lowest", "b"),
        node("Relu", "b", "zeros"), node("Add", "b zeros", "s"), node("Softmax", "s", "y", axis=-1),
    ]  # fmt: skip
    constants = {"one": np.float32(1), "lowest": np.float32(lowest)}
    given = rounded(graph_of(nodes, constants, inputs=inputs), tmp_path, mask=np.array([[1, 1, 0, 0], [0, 0, 0, 0]]))
    assert given.tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4]


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_the_twin_rounds_each_result(tmp_path, dtype, bits):
    # 1 + 2^-bits lies between two numbers of so many bits, and is rounded to the even one.
    nodes = [node("Relu", "x", "a"), node("Add", "a c", "s"), node("Sub", "s one", "y")]
    model = graph_of(nodes, {"c": np.float32(2.0**-bits), "one": np.float32(1)})
    assert rounded(model, tmp_path, dtype, x=np.ones((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]


def test_the_twin_overflows_as_float16_does(tmp_path):
    nodes = [node("Relu", "x", "a"), node("Mul", "a c", "b"), node("Mul", "b d", "y")]
    constants = {"c": np.float32(1000), "d": np.float32(0.001)}
    x = np.full((1, 4), 100, np.float32)
    assert np.isinf(rounded(graph_of(nodes, constants), tmp_path, x=x)).all()
    np.testing.assert_allclose(rounded(graph_of(nodes, constants), tmp_path, "bfloat16", x=x), 100, rtol=2**-6)


def test_bfloat16_has_fewer_kernels():
    """CUDA's provider clips float16 and no bfloat16."""
    nodes = [node("Relu", "x", "a"), node("Clip", "a zero one", "b"), node("Add", "b one", "y")]
    constants = {"zero": np.float32(0), "one": np.float32(1)}
    types = {}
    for dtype in ("float16", "bfloat16"):
        model = graph_of(nodes, constants)
        to_half(model, dtype)
        types[dtype] = next(node for node in model.graph if node.op_type == "Clip").outputs[0].dtype
    assert types == {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.FLOAT}


def test_a_residual_and_its_norm_are_one_operator(tmp_path):
    generator = np.random.default_rng(0)
    inputs = (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 4]),)
    nodes = [
        node("Relu", "x", "r"), node("Tanh", "x", "t"), node("Add", "t bias", "a"), node("Add", "a r", "s"),
        node("LayerNormalization", "s gamma beta", "n", epsilon=1e-3), node("Add", "n s", "y"),
    ]  # fmt: skip
    constants = {name: generator.normal(size=4).astype(np.float32) for name in ("bias", "gamma", "beta")}
    model = graph_of(nodes, constants, inputs=inputs, shape=["batch", "length", 4])
    for value in (output for made in model.graph for output in made.outputs):
        value.shape = ir.Shape(["batch", "length", 4])
    fuse_skip_layer_norms(model)
    assert [made.op_type for made in model.graph] == ["Relu", "Tanh", "SkipLayerNormalization", "Add"]
    write_graph(model, tmp_path / "g.onnx")
    x = generator.normal(size=(2, 3, 4)).astype(np.float32)
    total = np.tanh(x) + constants["bias"] + np.maximum(x, 0)
    variance = total.var(-1, keepdims=True)
    normal = (total - total.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-3)
    expected = normal * constants["gamma"] + constants["beta"] + total
    np.testing.assert_allclose(EncoderRunner(tmp_path / "g.onnx", 1).run({"x": x})["y"], expected, atol=1e-5)


@pytest.mark.parametrize("value", [None, 0.0, 3.0, -1e30])
def test_what_fills_an_array_is_a_number_that_16_bits_hold(tmp_path, value):
    """Zeros where the node names no value, and the largest float16 in place of what is beyond it."""
    filled = {} if value is None else {"value": numpy_helper.from_array(np.array([value], np.float32))}
    nodes = [node("Shape", "x", "s"), node("ConstantOfShape", "s", "z", **filled), node("Max", "z z", "y")]
    model = graph_of(nodes, {}, between={"s": TensorProto.INT64})
    expected = max(value or 0.0, -65504.0)
    assert rounded(model, tmp_path, x=np.ones((1, 4), np.float32)).tolist() == [[expected] * 4]


def test_keys_and_values_have_16_bits_outside_and_nothing_else(tmp_path):
    """Exp is computed in float32, and what it gives leaves the graph as it is."""
    past = helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, ["batch", 4])
    nodes = [
        node("Relu", "x", "a"),
        node("Add", "a past_key_values.0.key", "present.0.key"),
        node("Exp", "present.0.key", "y"),
    ]
    model = graph_of(nodes, {}, inputs=(X, past))
    model.graph.outputs.append(next(made for made in model.graph if made.op_type == "Add").outputs[0])
    to_half(model, "float16")
    types = {str(value.name): value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    assert types == {
        "x": ir.DataType.FLOAT, "y": ir.DataType.FLOAT,
        "past_key_values.0.key": ir.DataType.FLOAT16, "present.0.key": ir.DataType.FLOAT16,
    }  # fmt: skip
    # Of x for Relu, and of the sum for Exp.
    assert [made.op_type for made in model.graph] == ["Cast", "Relu", "Add", "Cast", "Exp"]
    write_graph(model, tmp_path / "g.onnx")
    arrays = {"x": np.full((1, 4), 1.5, np.float32), "past_key_values.0.key": np.full((1, 4), 0.25, np.float16)}
    given = EncoderRunner(tmp_path / "g.onnx", 1).run(arrays)
    assert given["present.0.key"].tolist() == [[1.75] * 4]
    np.testing.assert_allclose(given["y"], np.exp(1.75), rtol=1e-6)


def test_an_output_that_is_computed_in_16_bits_is_float32():
    model = graph_of([node("Relu", "x", "y")], {})
    to_half(model, "float16")
    assert [made.op_type for made in model.graph] == ["Cast", "Relu", "Cast"]
    (output,) = model.graph.outputs
    assert (output.name, output.dtype) == ("y", ir.DataType.FLOAT)


def test_a_value_is_converted_once_for_all_its_readers():
    """Of x for Relu, and of what that gives for both operators that stay in float32."""
    nodes = [node("Relu", "x", "a"), node("Exp", "a", "b"), node("Log", "a", "c"), node("Add", "b c", "y")]
    model = graph_of(nodes, {})
    to_half(model, "float16")
    assert sorted(made.op_type for made in model.graph) == ["Add", "Cast", "Cast", "Exp", "Log", "Relu"]
    assert model.graph.outputs[0].producer().op_type == "Add"


def test_truths_become_floats_of_16_bits(tmp_path):
    inputs = (X, helper.make_tensor_value_info("mask", TensorProto.BOOL, ["batch", 4]))
    nodes = [node("Cast", "mask", "m", to=TensorProto.FLOAT), node("Relu", "x", "a"), node("Mul", "a m", "y")]
    model = graph_of(nodes, {}, inputs=inputs)
    mask = np.array([[True, False, True, False]])
    assert rounded(model, tmp_path, x=np.full((1, 4), 1.5, np.float32), mask=mask).tolist() == [[1.5, 0, 1.5, 0]]
    casts = [made for made in model.graph if made.op_type == "Cast" and made.inputs[0].name == "mask"]
    assert [made.attributes["to"].value for made in casts] == [ir.DataType.FLOAT16]


@pytest.mark.parametrize(
    ("kind", "constant", "expected"),
    [
        # The smallest float16 above 0 is 2^-24, 5.96e-8; half of it is rounded to 0, and what is above to 2^-24.
        ("Add", 2.0**-25, ir.DataType.FLOAT),
        ("Add", 2.0**-25 * 1.01, ir.DataType.FLOAT16),
        ("Mul", -(2.0**-25), ir.DataType.FLOAT),
        ("Add", 0.0, ir.DataType.FLOAT16),
        # A weight is no epsilon.
        ("Add", [1e-9, 1, 1, 1], ir.DataType.FLOAT16),
        ("Add", [1e-9], ir.DataType.FLOAT),
        ("PRelu", 1e-9, ir.DataType.FLOAT16),
    ],
)
def test_a_node_is_wide_for_a_number_that_would_become_0(kind, constant, expected):
    model = graph_of(
        [node("Relu", "x", "a"), node(kind, "a c", "b"), node("Relu", "b", "y")], {"c": np.float32(constant)}
    )
    to_half(model, "float16")
    assert next(made for made in model.graph if made.op_type == kind).outputs[0].dtype == expected


def test_what_rounding_explains():
    """Four times the root of the operators, each off by 2^-11 or 2^-8 at most."""
    assert allowed_error(1, "float16") == 4 / 2048
    assert allowed_error(100, "float16") == 40 / 2048
    assert allowed_error(9, "bfloat16") == 12 / 256
