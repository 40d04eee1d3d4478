"""Small graphs are what the onnx package reads and ONNX Runtime runs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.helpers.fake_device import FakeDevice, fake_device
from triform.runtime.graphs.device.memory import place_of
from triform.runtime.graphs.device.moves import RowMover
from triform.runtime.graphs.device.ranking import Ranking
from triform.runtime.graphs.device.small_graphs import FLOAT, INT64, Operator, Tensor, small_graph

__all__ = ["fake_device"]


class Cpu:
    """What the small graphs ask of the decoder's session."""

    def get_providers(self):
        return ["CPUExecutionProvider"]


def test_onnx_accepts_one_of_many_tensors():
    names = [f"x{index}" for index in range(200)]
    graph = small_graph(
        [Operator("Identity", [name], [f"y{name}"]) for name in names],
        [Tensor(name, FLOAT, 1) for name in names],
        [Tensor(f"y{name}", FLOAT, 1) for name in names],
    )
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model)
    assert [node.input[0] for node in model.graph.node] == names
    session = onnxruntime.InferenceSession(graph)
    (result,) = session.run(["yx199"], {name: np.full(3, 2, np.float32) for name in names})
    assert result.tolist() == [2, 2, 2]


@pytest.mark.parametrize("length", [126, 127, 128, 129, 16383, 16384])
def test_lengths_of_one_byte_and_of_several(length):
    """Protocol buffers write seven bits of a number in each byte."""
    name = "x" * length
    graph = small_graph([Operator("Identity", [name], ["y"])], [Tensor(name, FLOAT, 1)], [Tensor("y", FLOAT, 1)])
    (node,) = onnx.load_from_string(graph).graph.node
    assert node.input == [name] and node.output == ["y"]


def test_a_type_is_told():
    graph = small_graph([Operator("Identity", ["x"], ["y"])], [Tensor("x", INT64, 2)], [Tensor("y", INT64, 2)])
    assert onnx.load_from_string(graph).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT64


@pytest.mark.parametrize("tokens", [3, 5, 8])
def test_rows_are_picked_cut_and_padded(fake_device, tokens):
    device = FakeDevice("cuda")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((4, heads, 5, size)).astype(np.float16) for heads, size in ((2, 3), (1, 6))]
    sources = [device.upload(array) for array in arrays]
    targets = [device.empty((5, array.shape[1], tokens, array.shape[3]), np.float16) for array in arrays]
    RowMover(Cpu(), device, 2)(
        [place_of(value) for value in sources], [3, 0, 3], [place_of(value) for value in targets]
    )
    for array, target in zip(arrays, targets, strict=True):
        expected = np.zeros((5, array.shape[1], tokens, array.shape[3]), np.float16)
        kept = min(tokens, 5)
        expected[:3, :, :kept] = array[[3, 0, 3], :, :kept]
        np.testing.assert_array_equal(device.fetch(target), expected)


def test_the_likeliest_tokens_in_the_order_of_the_vocabulary(fake_device):
    device = FakeDevice("cuda")
    logits = np.random.default_rng(0).standard_normal((3, 1, 50)).astype(np.float32)
    tokens, values = Ranking(Cpu(), device)(device.upload(logits), 4)
    for row in range(3):
        expected = np.sort(np.argsort(logits[row, 0])[-4:])
        assert tokens[row, 0].tolist() == expected.tolist()
        assert values[row, 0].tolist() == logits[row, 0, expected].tolist()
