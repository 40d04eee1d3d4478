"""Where the numbers of parameters are in a GGUF file: names of layers, left-out and unknown tensors, orders of rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.placement import Placement, further_layers, place
from triform.runtime.errors import ExportError

HEADS = {"q": 8, "k": 4, "v": 4, "head": 4}
SEPARATE = {"blk.{}.attn_q": "l.{}.q", "blk.{}.attn_k": "l.{}.k", "blk.{}.attn_v": "l.{}.v"}
TABLE = {**SEPARATE, "output": "head", "blk.{}.experts": "unlike", "each": "part.{}"}
# llama.cpp has the two of each pair side by side: of a head of four, 0 and 1 are a pair, which were 0 and 2.
HEAD = np.array([0, 2, 1, 3])


def floats(name, *shape):
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Tensor(name, GGMLQuantizationType.F32, shape, data)


def a_file(*names, shape=(8, 2), **values):
    tensors = [name if isinstance(name, Tensor) else floats(name, *shape) for name in names]
    return SimpleNamespace(
        path=Path("folder/m.gguf"), architecture="arch", values={f"arch.{key}": value for key, value in values.items()},
        tensors={tensor.name: tensor for tensor in tensors},
    )  # fmt: skip


def architecture(**values):
    return Architecture(**({"model_type": "m", "sizes": {}, "tensors": TABLE} | values))


def placed(file, heads=HEADS, **values):
    return place(file, architecture(**values), heads)


def rows_of(placement):
    return None if placement.rows is None else placement.rows.tolist()


def test_names_of_layers_and_kinds():
    found = placed(a_file("output.weight", "output.bias", "blk.0.attn_q.weight", "blk.12.attn_v.bias"))
    assert list(found) == ["head.weight", "head.bias", "l.0.q.weight", "l.12.v.bias"]
    assert found["l.12.v.bias"].tensor.name == "blk.12.attn_v.bias"
    assert all(placement.rows is placement.second is placement.columns is None for placement in found.values())


@pytest.mark.parametrize("kind", ["enc", "dec"])
def test_layers_of_an_encoder_and_a_decoder(kind):
    found = placed(a_file(f"{kind}.blk.3.norm.weight"), tensors={f"{kind}.blk.{{}}.norm": "n.{}"})
    assert list(found) == ["n.3.weight"]


def test_names_without_a_kind():
    found = placed(a_file("blk.2.ssm_a", "alone"), bare={"blk.{}.ssm_a": "l.{}.A_log", "alone": "single"})
    assert list(found) == ["l.2.A_log", "single"]
    with pytest.raises(ExportError, match=r"would be lost: blk\.2\.ssm_a$"):
        placed(a_file("blk.2.ssm_a"), bare={"blk.{}.ssm_d": "l.{}.D"})


@pytest.mark.parametrize(
    ("count", "listed"), [(1, "t0"), (3, "t0, t1, t2"), (4, "t0, t1, t2 and 1 more"), (9, "t0, t1, t2 and 6 more")]
)
def test_tensors_that_would_be_lost_are_named(count, listed):
    with pytest.raises(ExportError) as caught:
        placed(a_file("output.weight", *(f"t{index}" for index in reversed(range(count)))))
    assert str(caught.value) == (
        f"m.gguf has tensors that a model of arch does not read and that would be lost: {listed}"
    )


@pytest.mark.parametrize(
    ("name", "values", "read"),
    [
        ("rope_freqs.weight", {}, False), ("rope_freqs.weight", {"frequency_factors": True}, True),
        ("rope_freqs.weight", {"rotated_share": True}, True), ("rope_factors_long.weight", {}, True),
        ("rope_factors_short.weight", {}, True),
    ],
)  # fmt: skip
def test_tensors_that_make_the_rotary_embedding(name, values, read):
    if read:
        assert placed(a_file(name), **values) == {}
        return
    with pytest.raises(ExportError, match=f"would be lost: {name}"):
        placed(a_file(name), **values)


def test_layers_that_guess_a_second_token_are_left_out():
    file = a_file(*(f"blk.{layer}.attn_v.weight" for layer in range(4)), block_count=4, nextn_predict_layers=1)
    own = architecture(next_tokens=True)
    assert further_layers(file, own) == range(3, 4)
    assert list(place(file, own, HEADS)) == ["l.0.v.weight", "l.1.v.weight", "l.2.v.weight"]
    # An architecture that has none reads all, whatever the file says.
    assert list(further_layers(file, architecture())) == []
    assert len(placed(file)) == 4
    assert list(further_layers(a_file(block_count=4), own)) == [] and list(further_layers(a_file(), own)) == []


def test_layers_after_the_pooling_are_left_out():
    assert list(placed(a_file("output.weight", "dense_2.weight"), dense=("dense_2",))) == ["head.weight"]


def test_rows_of_queries_and_keys_are_turned_back():
    names = [f"blk.0.attn_{one}.weight" for one in "qkv"]
    found = placed(a_file(*names), permuted=True)
    assert rows_of(found["l.0.q.weight"]) == rows_of(found["l.0.k.weight"]) == [*HEAD, *HEAD + 4]
    assert found["l.0.v.weight"].rows is None
    assert all(placement.rows is None for placement in placed(a_file(*names)).values())


@pytest.mark.parametrize("permuted", [False, True])
def test_a_matrix_of_queries_keys_and_values_is_cut(permuted):
    file = a_file("blk.1.attn_qkv.weight", "blk.1.attn_qkv.bias", shape=(16, 2))
    found = placed(file, permuted=permuted)
    turned = HEAD if permuted else np.arange(4)
    for kind in ("weight", "bias"):
        assert rows_of(found[f"l.1.q.{kind}"]) == [*turned, *turned + 4]
        assert rows_of(found[f"l.1.k.{kind}"]) == [*turned + 8]
        # Values are not rotated.
        assert rows_of(found[f"l.1.v.{kind}"]) == [12, 13, 14, 15]
    assert len(found) == 6


def test_a_matrix_that_the_model_has_too_is_not_cut():
    own = {"tensors": {**TABLE, "blk.{}.attn_qkv": "l.{}.qkv"}}
    file = a_file("blk.0.attn_qkv.weight", shape=(16, 2))
    assert rows_of(placed(file, **own)["l.0.qkv.weight"]) is None
    # In groups: one head of keys and of values each for two of queries.
    heads = {"q": 8, "k": 4, "v": 4, "head": 4}
    assert rows_of(placed(file, heads, grouped=True, **own)["l.0.qkv.weight"]) == list(range(16))
    heads = {"q": 4, "k": 2, "v": 2, "head": 2}
    file = a_file("blk.0.attn_qkv.weight", "output.weight", shape=(8, 2))
    found = placed(file, heads | {"q": 4, "k": 2, "v": 2, "head": 1}, grouped=True, **own)
    # Two groups of two queries, one key and one value each.
    assert rows_of(found["l.0.qkv.weight"]) == [0, 1, 4, 6, 2, 3, 5, 7]
    assert found["head.weight"].rows is None
    with pytest.raises(ExportError, match="would be lost"):
        placed(file, {})


def test_a_matrix_for_each_of_several_parameters():
    found = placed(a_file("each.weight", shape=(3, 2)))
    assert {name: rows_of(placement) for name, placement in found.items()} == {
        "part.0.weight": [0], "part.1.weight": [1], "part.2.weight": [2],
    }  # fmt: skip
    assert found["part.1.weight"].stored.data.tolist() == [[2, 3]] and found["part.1.weight"].stored.shape == (1, 2)


@pytest.mark.parametrize("names", [("blk.0.up.weight", "blk.0.gate.weight"), ("blk.0.gate.weight", "blk.0.up.weight")])
def test_two_tensors_of_one_parameter_are_in_the_tables_order(names):
    found = placed(a_file(*names), tensors={"blk.{}.gate": "l.{}.both", "blk.{}.up": "l.{}.both"})
    (placement,) = found.values()
    assert (placement.tensor.name, placement.second.name) == ("blk.0.gate.weight", "blk.0.up.weight")


def test_orders_of_rows_and_columns():
    """Two heads of keys, to each of which two of values belong: the file has the first of each before the second."""
    heads = {"key heads": 2, "value heads": 4, "key": 1, "value": 2}
    orders = {"row_orders": {"a": "values"}, "column_orders": {"b": "heads of values"}, "tensors": {"a": "a", "b": "b"}}
    found = placed(a_file(floats("a.weight", 8, 3), floats("b.weight", 3, 4)), heads, **orders)
    assert rows_of(found["a.weight"]) == [0, 1, 4, 5, 2, 3, 6, 7] and found["a.weight"].columns is None
    assert found["b.weight"].columns.tolist() == [0, 2, 1, 3] and found["b.weight"].rows is None
    # As many as both tensors have together, and not as many.
    both = {"row_orders": {"a": "values"}, "tensors": {"a": "ab", "b": "ab"}}
    (one,) = placed(a_file(floats("a.weight", 5, 3), floats("b.weight", 3, 3)), heads, **both).values()
    assert rows_of(one) == [0, 1, 4, 5, 2, 3, 6, 7]
    (one,) = placed(a_file(floats("a.weight", 5, 3), floats("b.weight", 2, 3)), heads, **both).values()
    assert one.rows is None


def test_what_is_stored_of_chosen_rows():
    matrix, vector = floats("a", 3, 4), floats("b", 4)
    assert Placement(matrix).stored is matrix
    stored = Placement(matrix, np.array([2, 0])).stored
    assert (stored.name, stored.shape, stored.data.tolist()) == ("a", (2, 4), [[8, 9, 10, 11], [0, 1, 2, 3]])
    assert Placement(vector, np.array([3, 1])).stored.data.tolist() == [3, 1]
    # A half is two bytes, as the file has them.
    halves = Tensor("c", GGMLQuantizationType.F16, (3,), np.array([1, 2, 3], np.float16).view(np.uint8))
    stored = Placement(halves, np.array([2, 1])).stored
    assert stored.data.view(np.float16).tolist() == [3, 2] and stored.shape == (2,)
