"""Where the logits of an imported graph are picked, and that they are those of the positions, by numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from triform.export.onnx_import.decoders.logits import pick_logits
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph

WEIGHT = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
POSITIONS = np.array([[2, 0], [1, 1]])


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(" "), outputs.split(), **attributes)


def picked(nodes, *, dtype=TensorProto.FLOAT, others=(), constants=None):
    """A graph of states x whose result y was picked, with its operators in order."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    constants = {"w": WEIGHT.astype(kind), **(constants or {})}
    given = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs = [helper.make_tensor_value_info("x", dtype, ["batch", "sequence", 4])]
    inputs += [helper.make_tensor_value_info(name, dtype, shape) for name, shape in others]
    outputs = [helper.make_tensor_value_info("y", dtype, ["batch", "sequence", 6])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, given)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
    model.graph.outputs[0] = pick_logits(model.graph, model.graph.outputs[0])[1]
    return model, [made.op_type for made in model.graph]


def run(folder, model, **arrays):
    write_graph(model, folder / "g.onnx")
    return EncoderRunner(folder / "g.onnx", 1).run({**arrays, "logits_positions": POSITIONS})["logits"]


@pytest.fixture
def states():
    return np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)


def expected(logits):
    return np.take_along_axis(logits, POSITIONS[:, :, None], 1)


def test_no_others_are_computed(tmp_path, states):
    nodes = [node("MatMul", "x w", "p"), node("Mul", "p c", "m"), node("Tanh", "m", "y")]
    model, kinds = picked(nodes, constants={"c": np.float32(0.5)})
    assert kinds == ["Reshape", "GatherND", "MatMul", "Mul", "Tanh"]
    found = run(tmp_path, model, x=states)
    np.testing.assert_allclose(found, expected(np.tanh(0.5 * (states @ WEIGHT))), atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        # The weights come of the text, the result of a product is used twice, or an operator looks at several numbers.
        [node("MatMul", "x v", "y")],
        [node("MatMul", "x w", "p"), node("Mul", "p p", "y")],
        [node("MatMul", "x w", "p"), node("Softmax", "p", "y", axis=-1)],
        [node("MatMul", "x w", "p"), node("MatMul", "x w", "q"), node("Add", "p q", "y")],
    ],
)
def test_they_are_picked_at_the_end_where_that_is_safer(tmp_path, states, nodes):
    model, kinds = picked(nodes, others=[("v", [4, 6])])
    assert kinds == [*(made.op_type for made in nodes), "Reshape", "GatherND"]
    product = states @ WEIGHT
    exponential = np.exp(product)
    by_last = {"Mul": product**2, "Add": 2 * product, "Softmax": exponential / exponential.sum(-1, keepdims=True)}
    found = run(tmp_path, model, x=states, v=WEIGHT)
    np.testing.assert_allclose(found, expected(by_last.get(nodes[-1].op_type, product)), atol=2e-6)


def test_weights_of_four_bits_without_zero_points():
    """Inputs that are left out count as stored."""
    nodes = [node("MatMulNBits", "x b s  g", "y", domain="com.microsoft", K=4, N=6, bits=4, block_size=16)]
    constants = {"b": np.zeros((6, 1, 8), np.uint8), "s": np.ones(6, np.float32), "g": np.zeros(4, np.int32)}
    assert picked(nodes, constants=constants)[1] == ["Reshape", "GatherND", "MatMulNBits"]


def test_logits_of_16_bits_come_out_as_float32(tmp_path, states):
    model, kinds = picked([node("MatMul", "x w", "y")], dtype=TensorProto.FLOAT16)
    assert kinds == ["Reshape", "GatherND", "MatMul", "Cast"]
    found = run(tmp_path, model, x=states.astype(np.float16))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(states @ WEIGHT), atol=2e-2)
