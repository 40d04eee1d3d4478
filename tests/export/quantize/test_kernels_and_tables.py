"""Kernels of convolutions in 8 bits, and tables of positions in float16, against the float32 graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from triform.export.quantize.kernels_and_tables import narrow_kernels_and_tables

RNG = np.random.default_rng(7)
# 96 numbers of each output channel are one block of 48 and another.
KERNEL = RNG.normal(size=(176, 32, 3)).astype(np.float32)
GROUPED = RNG.normal(size=(160, 16, 7)).astype(np.float32)
POSITIONS = RNG.normal(size=(130, 160)).astype(np.float32)
TOKENS = RNG.normal(size=(110, 160)).astype(np.float32)
SMALL = RNG.normal(size=(160, 160, 1)).astype(np.float32)[:, :2]


def graph_of(**changes):
    """Signals and ids in, convolutions and looked up rows out; token ids are an input, places are not."""
    weights = {
        "kernel": KERNEL,
        "grouped": GROUPED,
        "positions": POSITIONS,
        "tokens": TOKENS,
        "small": SMALL,
        **changes,
    }
    inputs = [
        helper.make_tensor_value_info("signal", TensorProto.FLOAT, [1, weights["kernel"].shape[1], 50]),
        helper.make_tensor_value_info("wide", TensorProto.FLOAT, [1, 160, 50]),
        helper.make_tensor_value_info("pair", TensorProto.FLOAT, [1, 2, 50]),
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 9]),
    ]
    nodes = [
        helper.make_node("Conv", ["signal", "kernel"], ["convolved"]),
        helper.make_node("Conv", ["wide", "grouped"], ["by_group"], group=10),
        helper.make_node("Conv", ["pair", "small"], ["of_pair"]),
        helper.make_node("Add", ["input_ids", "one"], ["places"]),
        helper.make_node("Gather", ["positions", "places"], ["of_places"]),
        helper.make_node("Gather", ["tokens", "input_ids"], ["of_tokens"]),
    ]
    names = ["convolved", "by_group", "of_pair", "of_places", "of_tokens"]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    constants.append(numpy_helper.from_array(np.array(1), "one"))
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, constants), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    return model


def outputs_of(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    feeds = {
        item.name: rng.integers(0, 100, item.shape)
        if item.type == "tensor(int64)"
        else rng.normal(size=item.shape).astype(np.float32)
        for item in session.get_inputs()
    }
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, feeds), strict=True))


def narrowed(model):
    graph = ir.serde.deserialize_model(model)
    narrow_kernels_and_tables(graph)
    return ir.serde.serialize_model(graph)


def types_of(model):
    return {item.name: onnx.TensorProto.DataType.Name(item.data_type) for item in model.graph.initializer}


def error(found, wanted):
    """The distance as a share of the norm."""
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_results_hardly_move():
    """The largest of 64 normal numbers is 2.4 on average, a step 2.4 / 127, its rounding error that over root 12."""
    wanted, found = outputs_of(graph_of()), outputs_of(narrowed(graph_of()))
    for name in ("convolved", "by_group"):
        assert 1e-3 < error(found[name], wanted[name]) < 1.3 * 2.4 / 127 / 12**0.5
    np.testing.assert_array_equal(found["of_places"], wanted["of_places"].astype(np.float16).astype(np.float32))
    assert not np.array_equal(found["of_places"], wanted["of_places"])
    for name in ("of_pair", "of_tokens"):
        np.testing.assert_array_equal(found[name], wanted[name])


def test_what_is_stored():
    found = types_of(narrowed(graph_of()))
    assert {name: found[name] for name in ("kernel.int8", "grouped.int8", "positions.float16", "tokens", "small")} == {
        "kernel.int8": "INT8", "grouped.int8": "INT8", "positions.float16": "FLOAT16", "tokens": "FLOAT",
        "small": "FLOAT",
    }  # fmt: skip
    assert found["kernel.scales"] == "FLOAT16"
    assert not {"kernel", "grouped", "positions"} & set(found)


def test_what_8_bits_move_too_far_is_stored_in_float16():
    """One number in each block is fifty times as large as the others, of which 8 bits leave little."""
    kernel = KERNEL.copy()
    kernel.reshape(len(kernel), -1, 48)[:, :, 5] *= 50
    model = narrowed(graph_of(kernel=kernel))
    assert types_of(model)["kernel.float16"] == "FLOAT16"
    assert error(outputs_of(model)["convolved"], outputs_of(graph_of(kernel=kernel))["convolved"]) < 2**-11


@pytest.mark.parametrize("size", [1e6, 1e-9], ids=["too large", "too small"])
def test_what_float16_cannot_hold_stays(size):
    model = narrowed(graph_of(positions=POSITIONS * np.float32(size)))
    assert types_of(model)["positions"] == "FLOAT"
    scaled = graph_of(positions=POSITIONS * np.float32(size))
    np.testing.assert_array_equal(outputs_of(model)["of_places"], outputs_of(scaled)["of_places"])


def test_a_kernel_of_zeros():
    kernel = np.zeros_like(KERNEL)
    kernel[3] = KERNEL[3]
    wanted, found = (
        outputs_of(model)["convolved"] for model in (graph_of(kernel=kernel), narrowed(graph_of(kernel=kernel)))
    )
    assert not found[:, :3].any()
    assert error(found, wanted) < 0.01
