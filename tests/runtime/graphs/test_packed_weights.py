"""Packed constants, written here bit by bit as the bundle's documentation describes them."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from triform.runtime.errors import BundleError
from triform.runtime.graphs.packed_weights import add_unpacked, packed_list, unpack, unpacked_weights

# What 3 bits of 4, and 5 and 6 bits of 8 are stored as, and others that the format has.
FIELDS = [
    [[2, 2], [2, 6], [1, 1], [1, 5]], [[4, 4], [1, 3]], [[4, 4], [2, 2]], [[4, 0]], [[2, 0]], [[1, 0]], [[1, 7]],
    [[2, 3], [4, 4], [1, 0]],
]  # fmt: skip


def packed(values, fields):
    found = []
    for width, place in fields:
        count, parts = len(values) * width // 8, 8 // width
        for index in range(count):
            numbers = [(values[part * count + index] >> place) % 2**width for part in range(parts)]
            found.append(sum(number << part * width for part, number in enumerate(numbers)))
    return bytes(found)


def values_of(fields, size, seed=0):
    """Random bytes whose bits in no field are zero."""
    mask = sum((2**width - 1) << place for width, place in fields)
    return (np.random.default_rng(seed).integers(0, 256, size) & mask).tolist()


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("size", [8, 24, 1024])
def test_every_bit_comes_back(fields, size):
    values = values_of(fields, size)
    data = np.frombuffer(packed(values, fields), np.uint8)
    assert len(data) == size * sum(width for width, _ in fields) // 8
    found = unpack(data, fields, size)
    assert (found.dtype, found.tolist()) == (np.uint8, values)


def test_by_hand():
    """The upper halves of bytes 0 and 4, 1 and 5 and so on, then two bits of bytes 0, 2, 4 and 6, and of the others."""
    data = np.array([0x51, 0x62, 0x73, 0x84, 0b11_10_01_00, 0b00_01_10_11, 0xFF], np.uint8)
    expected = [0x10, 0x20 + 12, 0x30 + 4, 0x40 + 8, 0x50 + 8, 0x60 + 4, 0x70 + 12, 0x80]
    assert unpack(data, [[4, 4], [2, 2]], 8).tolist() == expected


def written(folder, constants, files):
    """A list beside a graph that need not exist, and the files that it names."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "graph.onnx.packed").write_text(json.dumps(constants))
    return folder / "graph.onnx"


def entry(shape=(2, 8), offset=0, fields=((4, 4), (2, 2)), file="graph.data"):
    return {"file": file, "shape": list(shape), "offset": offset, "fields": [list(pair) for pair in fields]}


def test_constants_at_their_places(tmp_path):
    """In two files, with bytes before, between and after them, each in its shape."""
    first, second, third = values_of(FIELDS[2], 48, 1), values_of(FIELDS[1], 16, 2), values_of([[1, 0]], 64, 3)
    data = b"\xff" * 5 + packed(first, FIELDS[2]) + b"\xff" * 3 + packed(second, FIELDS[1])
    constants = {
        "a": entry((2, 3, 8), 5, FIELDS[2]),
        "b": entry((16,), 5 + 36 + 3, FIELDS[1]),
        "c": entry((8, 8), 2, [[1, 0]], "other.data"),
    }
    files = {"graph.data": data, "other.data": b"\xff" * 2 + packed(third, [[1, 0]]) + b"\xff"}
    found = unpacked_weights(written(tmp_path, constants, files))
    assert {name: array.shape for name, array in found.items()} == {"a": (2, 3, 8), "b": (16,), "c": (8, 8)}
    assert [array.reshape(-1).tolist() for array in found.values()] == [first, second, third]


def test_no_list_no_constants(tmp_path):
    assert packed_list(tmp_path / "graph.onnx") == tmp_path / "graph.onnx.packed"
    assert unpacked_weights(tmp_path / "graph.onnx") == {}


def test_memory_is_shared_by_the_same_bytes_only(tmp_path):
    fields = [[4, 4]]
    constants = {
        "a": entry((2, 8), 0, fields), "same": entry((16,), 0, fields), "place": entry((16,), 1, fields),
        "fields": entry((16,), 0, [[4, 0]]), "size": entry((8,), 0, fields), "file": entry((16,), 0, fields, "b.data"),
    }  # fmt: skip
    data, other = bytes(range(1, 10)), bytes(range(101, 110))
    found = unpacked_weights(written(tmp_path, constants, {"graph.data": data, "b.data": other}))
    shared = [name for name in found if np.shares_memory(found["a"], found[name])]
    assert shared == ["a", "same"]
    low = [(byte % 16, byte // 16) for byte in (data[:8], data[1:], data[:4], other[:8]) for byte in byte]
    whole, moved, short, file = low[:8], low[8:16], low[16:20], low[20:]

    def spread(pairs, by):
        return [by * pair[part] for part in (0, 1) for pair in pairs]

    assert found["a"].reshape(-1).tolist() == spread(whole, 16)
    assert found["place"].tolist() == spread(moved, 16)
    assert found["fields"].tolist() == spread(whole, 1)
    assert found["size"].tolist() == spread(short, 16)
    assert found["file"].tolist() == spread(file, 16)


@pytest.mark.parametrize("shape", [[1] * 64 + [8], [0, 2**63]], ids=["axes", "sizes"])
def test_shapes_that_no_array_has(tmp_path, shape):
    graph = written(tmp_path, {"a": entry(shape)}, {"graph.data": bytes(12)})
    with pytest.raises(
        BundleError, match=r"graph\.onnx\.packed or what it names cannot be read: copy the bundle again"
    ):
        unpacked_weights(graph)


def test_the_last_byte_is_needed(tmp_path):
    """16 bytes with 6 bits each are 12."""
    graph = written(tmp_path, {"a": entry(offset=1)}, {"graph.data": bytes(13)})
    assert unpacked_weights(graph)["a"].tolist() == [[0] * 8] * 2
    (tmp_path / "graph.data").write_bytes(bytes(12))
    with pytest.raises(BundleError, match=r"graph\.data is too short"):
        unpacked_weights(graph)


@pytest.mark.parametrize("fields", [[[4, 4]], [[4, 0]], [[2, 6]], [[1, 7]]], ids=str)
def test_fields_up_to_the_last_bit(tmp_path, fields):
    values = values_of(fields, 16)
    graph = written(tmp_path, {"a": entry(fields=fields)}, {"graph.data": packed(values, fields)})
    assert unpacked_weights(graph)["a"].reshape(-1).tolist() == values


@pytest.mark.parametrize(
    "wrong",
    [
        {"fields": []}, {"fields": [[4, 5]]}, {"fields": [[2, 7]]}, {"fields": [[1, 8]]}, {"fields": [[4, -1]]},
        {"fields": [[3, 0]]}, {"fields": [[8, 0]]}, {"fields": [[4, 4, 0]]}, {"fields": [[4, 4], [2]]},
        {"fields": [[4, 4], [3, 0]]}, {"shape": [12]}, {"shape": [-2, -8]}, {"shape": []}, {"offset": -1},
        {"shape": [2**40 + 8]},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_format_does_not_have_is_refused(tmp_path, wrong):
    graph = written(tmp_path, {"good": entry(), "a": entry() | wrong}, {"graph.data": bytes(100)})
    with pytest.raises(BundleError, match="a has a wrong shape, offset or field"):
        unpacked_weights(graph)


def test_the_largest_size_is_one_that_a_file_may_lack(tmp_path):
    assert math.prod([2**20, 2**20]) == 2**40
    graph = written(tmp_path, {"a": entry([2**20, 2**20])}, {"graph.data": bytes(100)})
    with pytest.raises(BundleError, match=r"graph\.data is too short"):
        unpacked_weights(graph)


@pytest.mark.parametrize("file", ["../graph.data", "inner/graph.data", "/graph.data", ".."])
def test_files_elsewhere_are_not_read(tmp_path, file):
    graph = written(tmp_path, {"a": entry(file=file)}, {"graph.data": bytes(100)})
    with pytest.raises(
        BundleError, match=r"graph\.onnx\.packed or what it names cannot be read: copy the bundle again"
    ):
        unpacked_weights(graph)


def test_a_session_gets_all_of_them_by_name():
    given = []
    fake = SimpleNamespace(OrtValue=SimpleNamespace(ortvalue_from_numpy=lambda array: ("value", array)))
    settings = SimpleNamespace(add_external_initializers=lambda names, values: given.append((names, values)))
    add_unpacked(fake, settings, {})
    assert given == []
    first, second = np.zeros(8, np.uint8), np.ones(8, np.uint8)
    add_unpacked(fake, settings, {"a": first, "b": second})
    ((names, values),) = given
    assert names == ["a", "b"]
    # The arrays themselves: a copy would take their memory twice.
    assert all(value is array for (_, value), array in zip(values, (first, second), strict=True))


def test_a_session_has_copies_of_them(tmp_path):
    # So their memory, as much as the model's, is free once the session is open.
    stored = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[4096], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "graph.onnx.unpacked", "offset": "0", "length": "4096"}.items():
        stored.external_data.add(key=key, value=value)
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [4096])
    nodes = [helper.make_node("Cast", ["w"], ["y"], to=TensorProto.INT32)]
    graph = helper.make_graph(nodes, "graph", [], [y], [stored])
    opset = helper.make_opsetid("", 21)
    (tmp_path / "graph.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    )
    settings, weights = ort.SessionOptions(), np.arange(4096).astype(np.uint8)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    add_unpacked(ort, settings, {"w": weights})
    session = ort.InferenceSession(str(tmp_path / "graph.onnx"), settings, providers=["CPUExecutionProvider"])
    weights[:] = 0
    assert session.run(None, {})[0].tolist() == [number % 256 for number in range(4096)]
