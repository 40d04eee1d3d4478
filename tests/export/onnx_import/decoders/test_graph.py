"""What another tool's decoder takes and gives, on graphs by hand: what is unknown is refused, the rest is renamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from triform.export.onnx_import.decoders.graph import Names, adapt_decoder, is_decoder
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.runtime.bundle.manifest import LayerCacheInfo
from triform.runtime.errors import ExportError, UnsupportedError

PATH = Path("folder/model.onnx")
INT64, INT32, FLOAT, HALF = ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.FLOAT16
OTHER_FORM = "does not give present.0.key, or takes no such past: its cache has another form"
CACHE = ["b", 2, "p", 4]


def parts_of(layers=1, **changes):
    """Inputs and outputs by name, (type, shape); a change of None leaves one out."""
    names = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    parts = {
        "input_ids": (INT64, ["b", "s"]),
        "attention_mask": (INT64, ["b", "all"]),
        "logits": (FLOAT, ["b", "s", 9]),
    }
    parts |= {f"past_key_values.{name}": (FLOAT, CACHE) for name in names}
    parts |= {f"present.{name}": (FLOAT, ["b", 2, "t", 4]) for name in names}
    return {name: part for name, part in (parts | changes).items() if part is not None}


def make(parts, opset=17, domain=""):
    """A graph in which each present is its past twice, and other outputs are the tokens in another type."""
    inputs = {name: ir.val(name, *kind) for name, kind in parts.items() if not name.startswith(("present", "logits"))}
    outputs = {}
    for name, (dtype, shape) in parts.items():
        past = inputs.get(name.replace("present", "past_key_values", 1))
        if name in inputs:
            continue
        if past is None:
            node = ir.node("Cast", [next(iter(inputs.values()))], {"to": int(dtype)})
        elif domain:
            node = ir.node("GroupQueryAttention", [past], domain=domain)
        else:
            node = ir.node("Concat", [past, past], {"axis": 2})
        outputs[name] = node.outputs[0]
        node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, ir.TensorType(dtype), ir.Shape(shape)
    nodes = [value.producer() for value in outputs.values()]
    graph = ir.Graph(
        [*inputs.values()], [*outputs.values()], nodes=nodes, opset_imports={"": opset, "com.microsoft": 1}
    )
    return ir.Model(graph, ir_version=10)


def adapted(parts, names=Names(), head_dim=None, **graph):  # noqa: B008, it is frozen
    model = make(parts, **graph)
    return model.graph, adapt_decoder(model, PATH, names, head_dim)


def refused(parts, **options):
    with pytest.raises(UnsupportedError) as caught:
        adapted(parts, **options)
    return str(caught.value).removeprefix(f"{PATH} ")


def described(values):
    return {value.name: (value.dtype, [getattr(size, "value", size) for size in value.shape]) for value in values}


def test_inputs_and_outputs_are_those_of_a_bundle():
    graph, cache = adapted(parts_of(2, position_ids=(INT64, ["b", "s"])))
    names = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert described(graph.inputs) == {
        "input_ids": (INT64, ["batch", "sequence"]), "past_lengths": (INT32, ["batch"]),
        "logits_positions": (INT64, ["batch", "num_logits"]),
        **{f"past_key_values.{name}": (FLOAT, ["batch", 2, "past", 4]) for name in names},
    }  # fmt: skip
    assert described(graph.outputs) == {
        "logits": (FLOAT, ["batch", "num_logits", 9]),
        **{f"present.{name}": (FLOAT, ["batch", 2, "total", 4]) for name in names},
    }
    assert (cache.dtype, cache.layers, cache.growth) == ("float32", [LayerCacheInfo(2, 4)] * 2, "concatenated")
    assert cache.uneven and not cache.single and cache.states == []


def test_layers_are_in_the_order_of_their_numbers():
    parts = parts_of(11)
    shuffled = dict(sorted(parts.items(), reverse=True))
    graph, cache = adapted({"input_ids": parts["input_ids"]} | shuffled)
    expected = [f"past_key_values.{layer}.{part}" for layer in range(11) for part in ("key", "value")]
    assert [value.name for value in graph.inputs][3:] == expected and len(cache.layers) == 11


def test_other_types_are_taken_and_given_as_floats(tmp_path):
    """Tokens of 32 bits, a cache of 16: the present is twice the past."""
    changes = {f"past_key_values.0.{part}": (HALF, CACHE) for part in ("key", "value")}
    changes |= {f"present.0.{part}": (HALF, ["b", 2, "t", 4]) for part in ("key", "value")}
    model = make(parts_of(1, input_ids=(INT32, ["b", "s"]), logits=(HALF, ["b", "s", 9]), **changes))
    # Logits of three axes.
    logits = model.graph.outputs[0].producer()
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([2])), type=ir.TensorType(INT64), shape=ir.Shape([1]))
    model.graph.register_initializer(axes)
    wide = ir.node("Unsqueeze", [logits.outputs[0], axes])
    wide.outputs[0].type, wide.outputs[0].shape = ir.TensorType(HALF), ir.Shape(["b", "s", 1])
    model.graph.append(wide)
    logits.outputs[0].name, wide.outputs[0].name = "flat", "logits"
    model.graph.outputs[0] = wide.outputs[0]
    cache = adapt_decoder(model, PATH, Names(), None)
    assert cache.growth == "concatenated"
    assert {value.dtype for value in model.graph.outputs} == {FLOAT}
    assert {value.dtype for value in model.graph.inputs} == {FLOAT, INT64, INT32}
    write_graph(model, tmp_path / "g.onnx")
    past = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
    found = EncoderRunner(tmp_path / "g.onnx", 1).run({
        "input_ids": np.array([[5, 6], [7, 8]]), "past_lengths": np.array([3, 3], np.int32),
        "logits_positions": np.array([[1, 0], [1, 1]]), "past_key_values.0.key": past, "past_key_values.0.value": -past,
    })  # fmt: skip
    np.testing.assert_array_equal(found["present.0.key"], np.concatenate([past, past], 2))
    np.testing.assert_array_equal(found["present.0.value"], -np.concatenate([past, past], 2))
    assert found["logits"].tolist() == [[[6], [5]], [[8], [8]]]


def test_names_of_another_tool():
    names = Names({"attention_mask": "mask"}, "pk%d", "pv%d", "k%d", "v%d", "scores")
    ours = {"past_key_values.0.key": "pk0", "past_key_values.0.value": "pv0", "attention_mask": "mask"}
    model = make(parts_of())
    for value in model.graph.inputs:
        value.name = ours.get(value.name, value.name)
    for value, name in zip(model.graph.outputs, ("scores", "k0", "v0"), strict=True):
        value.name = name
    adapt_decoder(model, PATH, names, None)
    assert [value.name for value in model.graph.outputs] == ["logits", "present.0.key", "present.0.value"]
    assert [value.name for value in model.graph.inputs][3:] == ["past_key_values.0.key", "past_key_values.0.value"]
    # The names of optimum are not those of this tool.
    assert refused(parts_of(), names=names).startswith("takes the input 'past_key_values.0.key', which is unknown; ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_ids": None}, "does not take input_ids, which a decoder of texts does"),
        ({"pixels": (FLOAT, ["b"])}, "takes the input 'pixels', which is unknown; known are input_ids, attention_mask, "
         "position_ids, cache_position, use_cache_branch, num_logits_to_keep and past_key_values.N.key and .value"),
        ({"present.0.value": None}, "does not give present.0.value, or takes no such past: its cache has another form"),
        ({"past_key_values.0.key": None}, OTHER_FORM),
        ({"logits": None}, "does not give logits, or takes no such past: its cache has another form"),
        ({"present.1.key": (FLOAT, CACHE)}, OTHER_FORM),
        # A layer is missing between two.
        ({f"{one}.2.{part}": (FLOAT, CACHE) for one in ("past_key_values", "present") for part in ("key", "value")},
         "does not give present.1.key, or takes no such past: its cache has another form"),
    ],
)  # fmt: skip
def test_what_is_missing_or_unknown(changes, said):
    assert refused(parts_of(1, **changes)) == said


def test_a_graph_without_a_past():
    left_out = {f"past_key_values.0.{part}": None for part in ("key", "value")}
    assert refused(parts_of(1, **left_out)).startswith(
        "takes no keys and values of a text so far: choose the graph with"
    )


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "fits"),
    [
        ("attention_mask", INT32, ["b", "all"], True), ("attention_mask", ir.DataType.BOOL, ["b", "all"], True),
        ("attention_mask", FLOAT, ["b", "all"], False),
        ("attention_mask", INT64, [1, "all"], False),
        ("attention_mask", INT64, ["b", 8], False), ("attention_mask", INT64, ["b"], False),
        ("attention_mask", INT64, [], False),
        ("attention_mask", INT64, ["b", "one", "all"], False), ("position_ids", INT64, ["b", 1], False),
        ("cache_position", INT64, ["s"], True), ("cache_position", INT64, [1], False),
        ("cache_position", INT64, ["b", "s"], False), ("use_cache_branch", ir.DataType.BOOL, [1], True),
        ("use_cache_branch", ir.DataType.BOOL, ["one"], True),
        ("use_cache_branch", ir.DataType.BOOL, [], True), ("num_logits_to_keep", INT64, [], True),
        ("num_logits_to_keep", INT64, [1], True), ("num_logits_to_keep", INT64, ["one"], False),
        ("num_logits_to_keep", INT64, [2], False), ("input_ids", INT64, ["b", 1], False),
        ("input_ids", FLOAT, ["b", "s"], False), ("input_ids", INT64, ["b", "s", "one"], False),
    ],
)  # fmt: skip
def test_shapes_of_what_is_computed(name, dtype, shape, fits):
    """Texts and their lengths are open; a single number may have an axis of its own."""
    parts = parts_of(1, **{name: (dtype, shape)})
    if fits:
        graph, _ = adapted(parts)
        assert name not in [value.name for value in graph.inputs]
    else:
        assert refused(parts) == f"takes {name} as {dtype} of the shape {list(ir.Shape(shape))}, which is unknown"


@pytest.mark.parametrize(
    ("part", "dtype", "shape"),
    [
        ("key", ir.DataType.BFLOAT16, CACHE), ("value", INT64, CACHE), ("key", FLOAT, ["b", 2, "p"]),
        ("value", FLOAT, ["b", 2, "p", 4, 1]), ("key", FLOAT, ["b", "heads", "p", 4]),
        ("value", FLOAT, ["b", 3, "p", 4]),
        ("key", FLOAT, [1, 2, "p", 4]), ("value", FLOAT, ["b", 2, 9, 4]), ("value", FLOAT, ["b", 2, "p", 5]),
        ("key", FLOAT, ["b", 2, "p", "width"]),
    ],
)  # fmt: skip
def test_forms_of_the_cache_that_are_refused(part, dtype, shape):
    said = refused(parts_of(1, **{f"past_key_values.0.{part}": (dtype, shape)}))
    assert said.startswith("takes past_key_values.0.") and "not as floats of (batch, heads, past, head_dim)" in said
    if part == "value":
        sizes = ", ".join(map(str, shape))
        assert said.startswith(f"takes past_key_values.0.value as {dtype} of the shape ({sizes}), not")


def test_a_number_of_heads_that_the_graph_leaves_open():
    shapes = {f"past_key_values.0.{part}": (FLOAT, ["b", "heads", "p", 4]) for part in ("key", "value")}
    assert refused(parts_of(1, **shapes)).startswith(
        "takes past_key_values.0.key as FLOAT of the shape (b, heads, p, 4)"
    )


def test_values_without_a_past_are_named():
    said = refused(parts_of(1, **{"past_key_values.0.value": None}))
    assert said == "does not give present.0.value, or takes no such past: its cache has another form"


def test_the_size_of_a_head_that_the_graph_leaves_open():
    shapes = {f"past_key_values.0.{part}": (FLOAT, ["b", 2, "p", "width"]) for part in ("key", "value")}
    graph, cache = adapted(parts_of(1, **shapes), head_dim=4)
    assert cache.layers == [LayerCacheInfo(2, 4)]
    assert described(graph.inputs)["past_key_values.0.key"] == (FLOAT, ["batch", 2, "past", "head_dim"])
    # What it says goes before what the config says.
    assert adapted(parts_of(), head_dim=7)[1].layers == [LayerCacheInfo(2, 4)]


def test_a_cache_that_grows_in_place():
    assert adapted(parts_of(2), domain="com.microsoft")[1].growth == "in_place"
    assert adapted(parts_of(2), domain="elsewhere")[1].growth == "concatenated"
    halves = {f"past_key_values.1.{part}": (HALF, CACHE) for part in ("key", "value")}
    assert adapted(parts_of(2, **halves), domain="com.microsoft")[1].growth == "concatenated"
    model = make(parts_of(2), domain="com.microsoft")
    model.graph.append(ir.node("Shape", [model.graph.inputs[-1]]))
    assert adapt_decoder(model, PATH, Names(), None).growth == "concatenated"


def test_the_oldest_opset():
    assert adapted(parts_of(), opset=12)[1].layers
    with pytest.raises(ExportError, match=r"^folder/model\.onnx has an opset below 12: export the model again"):
        adapted(parts_of(), opset=11)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (["past_key_values.0.key"], [], True), ([], ["present.12.key"], True), (["present.0.key"], [], False),
        ([], ["past_key_values.0.key"], False), (["past_key_values.a.key"], ["present.0.value"], False),
        (["past_key_values.0.key.more"], ["logits"], False), (["past_key_values_0_key"], [], False),
    ],
)  # fmt: skip
def test_what_a_decoder_is_known_by(inputs, outputs, expected):
    source = ir.val("input_ids", INT64, ["b"])
    nodes = [ir.node("Identity", [source]) for _ in outputs]
    for node, name in zip(nodes, outputs, strict=True):
        node.outputs[0].name = name
    given = [source, *(ir.val(name, FLOAT, CACHE) for name in inputs)]
    assert is_decoder(ir.Graph(given, [node.outputs[0] for node in nodes], nodes=nodes)) is expected
