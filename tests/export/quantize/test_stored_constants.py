"""Integers of few bits are written packed, and ONNX Runtime gets them as the operators read them."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

from triform.export.graph.packed import PackedTensor
from triform.export.quantize.stored.constants import StoredConstants
from triform.export.runners import open_session_of
from triform.export.write import write_graph
from triform.runtime.errors import BundleError
from triform.runtime.graphs.packed_weights import packed_list, unpacked_weights
from triform.runtime.graphs.session import open_session

SHAPE = (6, 20, 32)


@pytest.mark.parametrize(("own", "bits"), [(2, 4), (3, 4), (4, 4), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (8, 8)])
def test_every_number_comes_back_in_the_upper_bits(own, bits, tmp_path):
    numbers = random_numbers(own)
    expected = numbers * 2 ** (bits - own)
    if bits == 4:
        # The first of two has the lower half of their byte.
        expected = expected[..., 0::2] + 16 * expected[..., 1::2]
    path = written(tmp_path, numbers, own, bits)
    assert packed_list(path).exists() == (own < bits)
    for session in (open_session(path), open_session_of(path, 1)):
        assert np.array_equal(session.run(None, {})[0], expected)


@pytest.mark.parametrize(("own", "bits"), [(2, 4), (3, 4), (3, 8), (4, 8), (5, 8), (6, 8)])
def test_they_are_stored_in_their_own_bits(own, bits, tmp_path):
    path = written(tmp_path, random_numbers(own), own, bits)
    assert path.with_name("graph.onnx.data").stat().st_size == np.prod(SHAPE) * own // 8


def test_the_documented_layout(tmp_path):
    """Of 16 bytes with six bits each: two in a byte with their upper halves, then four in a byte with two bits each."""
    numbers = (np.arange(16 * 128).reshape(1, 16, 128) % 64).astype(np.uint8)
    data = np.fromfile(written(tmp_path, numbers, 6, 8).with_name("graph.onnx.data"), np.uint8)
    flat = numbers.reshape(-1)
    half, quarter = flat.size // 2, flat.size // 4
    assert np.array_equal(data[:half], (flat[:half] >> 2) + 16 * (flat[half:] >> 2))
    low = (flat & 3).reshape(4, quarter)
    assert np.array_equal(data[half:], low[0] + 4 * low[1] + 16 * low[2] + 64 * low[3])
    entry = json.loads((tmp_path / "graph.onnx.packed").read_text())
    place = {"file": "graph.onnx.data", "offset": 0}
    assert entry == {"weight.blocks": {"shape": [1, 16, 128], "fields": [[4, 4], [2, 2]], **place}}


def test_without_the_list_nothing_is_read_for_a_packed_constant(tmp_path):
    path = written(tmp_path, random_numbers(6), 6, 8)
    packed_list(path).unlink()
    with pytest.raises(BundleError, match="cannot be opened"):
        open_session(path)


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 8}, {"offset": -1}, {"offset": 0.5}, {"offset": 2**70}, {"shape": [6, 20, 64]},
        {"shape": [6, -20, -32]}, {"shape": [2**40, 2**40]}, {"shape": [3]}, {"shape": "6"}, {"fields": [[3, 0]]},
        {"fields": [[4, 5]]}, {"fields": [[4]]}, {"fields": None}, {"fields": [[0, 0]]}, {"fields": []},
        {"file": "../graph.onnx.data"}, {"file": ""}, {"file": "other.data"},
    ],
)  # fmt: skip
def test_a_list_that_does_not_fit_is_refused(change, tmp_path):
    path = written(tmp_path, random_numbers(6), 6, 8)
    content = json.loads(packed_list(path).read_text())
    content["weight.blocks"] |= change
    packed_list(path).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"graph\.onnx\.packed .*copy the bundle again"):
        open_session(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight.blocks": 1}', "[" * 100_000, "1" * 5000])
def test_a_list_that_is_none_is_refused(text, tmp_path):
    path = written(tmp_path, random_numbers(6), 6, 8)
    packed_list(path).write_text(text)
    with pytest.raises(BundleError, match="copy the bundle again"):
        open_session(path)


def test_constants_of_the_same_bytes_are_unpacked_once(tmp_path):
    numbers = random_numbers(5)
    path = written(tmp_path, numbers, 5, 8, again=(6, -1))
    weights = unpacked_weights(path)
    assert [array.shape for array in weights.values()] == [SHAPE, (6, 640)]
    assert np.shares_memory(*weights.values())
    assert path.with_name("graph.onnx.data").stat().st_size == numbers.size * 5 // 8


def test_a_second_graph_reads_what_the_first_has_stored(tmp_path):
    numbers = random_numbers(6)
    stored = {}
    for name in ("first.onnx", "second.onnx"):
        write_graph(giving(numbers, 6, 8), tmp_path / name, stored)
    assert (tmp_path / "second.onnx.data").stat().st_size == 0
    assert np.array_equal(open_session(tmp_path / "second.onnx").run(None, {})[0], numbers * 4)


def test_a_graph_does_not_read_the_list_of_one_that_was_written_there_before(tmp_path):
    """Points of a frontier are compared one after another in the same file; their constants have the same names."""
    written(tmp_path, random_numbers(6), 6, 8)
    whole = random_numbers(8)
    path = written(tmp_path, whole, 8, 8)
    assert not packed_list(path).exists()
    for session in (open_session(path), open_session_of(path, 1)):
        assert np.array_equal(session.run(None, {})[0], whole)


def random_numbers(own):
    return np.random.default_rng(own).permutation(np.arange(np.prod(SHAPE)) % 2**own).astype(np.uint8).reshape(SHAPE)


def written(folder, numbers, own, bits, again=None):
    write_graph(giving(numbers, own, bits, again), folder / "graph.onnx")
    return folder / "graph.onnx"


def giving(numbers, own, bits, again=None):
    """A graph that gives the numbers, and with `again` in another shape too, as the operators read them."""
    given = [ir.Value(name="x"), ir.Value(name="x2")][: 2 if again else 1]
    last = [ir.node("Identity", [value]) for value in given]
    graph = ir.Graph([], [], nodes=last, opset_imports={"": 21}, name="test")
    constants = StoredConstants(graph, last[0], "weight")
    values = [constants.numbers(numbers, own, bits)]
    if again:
        values.append(constants.shaped(values[0], again))
    for node, value in zip(last, values, strict=True):
        node.replace_input_with(0, value)
        output = node.outputs[0]
        output.name, output.type, output.shape = f"y.{value.name}", value.type, value.shape
        graph.outputs.append(output)
    assert isinstance(values[0].const_value, PackedTensor) == (own < bits)
    return ir.Model(graph, ir_version=10)
