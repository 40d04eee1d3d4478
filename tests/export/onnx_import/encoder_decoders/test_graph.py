"""A pair of graphs of the three that another tool made, on graphs by hand: what they compute, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from triform.export.onnx_import.encoder_decoders.graph import make_pair
from triform.export.onnx_import.encoder_decoders.parts import Parts
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.runtime.bundle.manifest import LayerCacheInfo
from triform.runtime.errors import UnsupportedError

FLOAT, HALF, INT64, INT32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT32
HEADS, WIDTH, VOCABULARY = 2, 3, 5
STATES = HEADS * WIDTH
KEY, VALUE = np.eye(STATES, dtype=np.float32) * 2, np.eye(STATES, dtype=np.float32) * 3
node = helper.make_node


class Graph:
    """Inputs and outputs that a test may change by name: (type, shape), or None to leave it out."""

    def __init__(self, nodes, inputs, outputs, constants=(), opset=17):
        self.nodes, self.inputs, self.outputs, self.constants = (
            list(nodes),
            dict(inputs),
            dict(outputs),
            list(constants),
        )
        self.opset = opset

    def save(self, path):
        values = [
            [helper.make_tensor_value_info(name, *kind) for name, kind in side.items() if kind is not None]
            for side in (self.inputs, self.outputs)
        ]
        graph = helper.make_graph(self.nodes, "g", *values, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.save(model, path)


def tensor(name, array):
    array = np.asarray(array)
    kind = INT64 if array.dtype == np.int64 else FLOAT
    return helper.make_tensor(name, kind, array.shape, array.ravel())


def encoder():
    """States are tokens times 1 to 6."""
    return Graph(
        [
            node("Cast", ["input_ids"], ["ids"], to=FLOAT), node("Unsqueeze", ["ids", "last"], ["column"]),
            node("Mul", ["column", "weights"], ["all"]), node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
            node("Unsqueeze", ["mask", "last"], ["shown"]), node("Mul", ["all", "shown"], ["last_hidden_state"]),
        ],
        {"input_ids": (INT64, ["b", "s"]), "attention_mask": (INT64, ["b", "s"])},
        {"last_hidden_state": (FLOAT, ["b", "s", STATES])},
        [tensor("last", np.array([2])), tensor("weights", np.arange(1, 7, dtype=np.float32))],
    )  # fmt: skip


def own(past):
    """A decoder's keys and values of an answer: tokens, behind those so far."""
    made = [
        node("Cast", ["input_ids"], ["ids"], to=FLOAT), node("Unsqueeze", ["ids", "inner"], ["wide"]),
        node("Expand", ["wide", "heads"], ["new"]),
    ]  # fmt: skip
    for part in ("key", "value"):
        name = f"present.0.decoder.{part}"
        if past:
            made.append(node("Concat", [f"past_key_values.0.decoder.{part}", "new"], [name], axis=2))
        else:
            made.append(node("Identity", ["new"], [name]))
    return made


CONSTANTS = [
    tensor("inner", np.array([1, 3])), tensor("heads", np.array([1, HEADS, 1, WIDTH])),
    tensor("head", np.ones((STATES, VOCABULARY), np.float32)), tensor("split", np.array([0, 0, HEADS, WIDTH])),
    tensor("axes", np.array([1, 2, 3])), tensor("cell", np.array([-1, 1, 1])),
    tensor("tokens", np.arange(VOCABULARY, dtype=np.float32)), tensor("key", KEY), tensor("value", VALUE),
]  # fmt: skip


def decoder(*, past):
    """Logits are the sum of all keys of the source and of the answer, plus the number of the token."""
    nodes = own(past)
    present = {f"present.0.decoder.{part}": (FLOAT, ["b", HEADS, "t", WIDTH]) for part in ("key", "value")}
    inputs = {"input_ids": (INT64, ["b", "s"]), "encoder_attention_mask": (INT64, ["b", "source"])}
    if past:
        inputs |= {
            f"past_key_values.0.{side}.{part}": (FLOAT, ["b", HEADS, size, WIDTH])
            for side, size in (("decoder", "p"), ("encoder", "source")) for part in ("key", "value")
        }  # fmt: skip
        cross = {part: f"past_key_values.0.encoder.{part}" for part in ("key", "value")}
    else:
        inputs["encoder_hidden_states"] = (FLOAT, ["b", "source", STATES])
        cross = {part: f"present.0.encoder.{part}" for part in ("key", "value")}
        for part, name in cross.items():
            nodes += [
                node("MatMul", ["encoder_hidden_states", part], [f"{part}.all"]),
                node("Reshape", [f"{part}.all", "split"], [f"{part}.split"]),
                node("Transpose", [f"{part}.split"], [name], perm=[0, 2, 1, 3]),
            ]
            present[name] = (FLOAT, ["b", HEADS, "source", WIDTH])
    nodes += [
        node("Cast", ["encoder_attention_mask"], ["seen"], to=FLOAT),
        node("ReduceSum", ["seen"], ["count"], keepdims=0),
        node("ReduceSum", [cross["key"], "axes"], ["first"], keepdims=0),
        node("ReduceSum", [cross["value"], "axes"], ["second"], keepdims=0),
        node("ReduceSum", ["present.0.decoder.key", "axes"], ["third"], keepdims=0),
        node("Add", ["first", "second"], ["both"]), node("Add", ["both", "third"], ["most"]),
        node("Add", ["most", "count"], ["sum"]), node("Reshape", ["sum", "cell"], ["sums"]),
        node("Mul", ["wide.token", "tokens"], ["zeros"]), node("Add", ["zeros", "sums"], ["moved"]),
        node("Add", ["moved", "tokens"], ["logits"]),
    ]  # fmt: skip
    nodes[1:1] = [node("Unsqueeze", ["ids", "end"], ["token"]), node("Sub", ["token", "token"], ["wide.token"])]
    constants = [*CONSTANTS, tensor("end", np.array([2]))]
    used = {name for each in nodes for name in each.input}
    outputs = {"logits": (FLOAT, ["b", "s", VOCABULARY]), **present}
    return Graph(nodes, inputs, outputs, [item for item in constants if item.name in used])


@pytest.fixture
def pair(tmp_path):
    """A function that writes the graphs, changed by a function of each, and makes a pair of them."""

    def make(change=lambda encoder, first, past: None, vocab_size=VOCABULARY):
        graphs = encoder(), decoder(past=False), decoder(past=True)
        change(*graphs)
        paths = [tmp_path / name for name in ("encoder.onnx", "first.onnx", "past.onnx")]
        for graph, path in zip(graphs, paths, strict=True):
            graph.save(path)
        return make_pair(Parts(tmp_path, *paths), vocab_size)

    return make


def described(values):
    return {value.name: (str(value.dtype), [getattr(size, "value", size) for size in value.shape]) for value in values}


CROSS = {f"cross_key_values.0.{part}": ("FLOAT", ["batch", HEADS, "source", WIDTH]) for part in ("key", "value")}


def test_what_a_pair_takes_and_gives(pair):
    made = pair()
    mask = {"encoder_attention_mask": ("INT32", ["batch", "source"])}
    assert described(made.encoder.graph.inputs) == {
        name: ("INT64", ["batch", "sequence"]) for name in ("input_ids", "attention_mask")
    }
    assert described(made.encoder.graph.outputs) == CROSS | mask
    past = {f"past_key_values.0.{part}": ("FLOAT", ["batch", HEADS, "past", WIDTH]) for part in ("key", "value")}
    assert described(made.decoder.graph.inputs) == {
        "input_ids": ("INT64", ["batch", "sequence"]), "past_lengths": ("INT32", ["batch"]),
        "logits_positions": ("INT64", ["batch", "num_logits"]), **past, **CROSS, **mask,
    }  # fmt: skip
    assert described(made.decoder.graph.outputs)["logits"] == ("FLOAT", ["batch", "num_logits", VOCABULARY])
    assert made.cache.layers == [LayerCacheInfo(HEADS, WIDTH)] and made.cache.growth == "concatenated"


def half_precision(encoder, first, past):
    """The encoder's states and the decoder's keys and values of the source have 16 bits."""
    encoder.nodes.append(node("Cast", ["last_hidden_state"], ["narrow"], to=HALF))
    encoder.outputs = {"narrow": (HALF, ["b", "s", STATES])}
    encoder.nodes[-2].output[0], encoder.nodes[-1].input[0] = "single", "single"
    encoder.nodes[-1].output[0] = "last_hidden_state"
    encoder.outputs = {"last_hidden_state": (HALF, ["b", "s", STATES])}
    past.inputs |= {
        f"past_key_values.0.encoder.{part}": (HALF, ["b", HEADS, "source", WIDTH]) for part in ("key", "value")
    }
    for part, name in (("key", "first"), ("value", "second")):
        wide = node("Cast", [f"past_key_values.0.encoder.{part}"], [f"wide.{part}"], to=FLOAT)
        (sums,) = [each for each in past.nodes if name in each.output]
        sums.input[0] = f"wide.{part}"
        past.nodes.insert(0, wide)


@pytest.mark.parametrize("change", [lambda *graphs: None, half_precision], ids=["float", "half"])
def test_what_a_pair_computes(pair, tmp_path, change):
    """Of the source 1, 2 and 4, the second hidden: 2 + 3 times 21 times 5, and its mask; 6 for each answered token."""
    made = pair(change)
    for name, model in (("e", made.encoder), ("d", made.decoder)):
        write_graph(model, tmp_path / f"{name}.onnx")
    mask = np.array([[1, 0, 1]])
    given = EncoderRunner(tmp_path / "e.onnx", 1).run({"input_ids": np.array([[1, 2, 4]]), "attention_mask": mask})
    assert (
        given["encoder_attention_mask"].tolist() == mask.tolist() and given["encoder_attention_mask"].dtype == np.int32
    )
    states = np.array([1, 0, 4], np.float32)[:, None] * np.arange(1, 7, dtype=np.float32)
    for part, factor in (("key", 2), ("value", 3)):
        expected = (factor * states).reshape(3, HEADS, WIDTH).swapaxes(0, 1)
        np.testing.assert_array_equal(given[f"cross_key_values.0.{part}"][0], expected)
    past = np.full((1, HEADS, 2, WIDTH), 7, np.float32)
    found = EncoderRunner(tmp_path / "d.onnx", 1).run({
        **given, "input_ids": np.array([[1, 3]]), "past_lengths": np.array([2], np.int32),
        "logits_positions": np.array([[1]]), "past_key_values.0.key": past, "past_key_values.0.value": past,
    })  # fmt: skip
    total = (2 + 3) * 21 * 5 + 2 + 6 * (7 + 7 + 1 + 3)
    assert found["logits"].tolist() == [[[total + token for token in range(VOCABULARY)]]]


def without(side, name):
    return lambda *graphs: graphs[side].inputs.update({name: None})


def typed(side, name, kind, outputs=False):
    def change(*graphs):
        (graphs[side].outputs if outputs else graphs[side].inputs)[name] = kind

    return change


def renamed(side, old, new):
    """Another name of an input, everywhere."""

    def change(*graphs):
        graph = graphs[side]
        graph.inputs = {new if name == old else name: kind for name, kind in graph.inputs.items()}
        for each in graph.nodes:
            each.input[:] = [new if name == old else name for name in each.input]

    return change


def opset(*graphs):
    graphs[0].opset = 16


PAST_KEY = "past_key_values.0.encoder.key"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (opset, "encoder.onnx and first.onnx in {folder} have other opsets"),
        (typed(2, PAST_KEY, (INT64, ["b", HEADS, "source", WIDTH])),
         "{folder}/past.onnx takes past_key_values.0.encoder.key as INT64"),
        (typed(2, PAST_KEY, (FLOAT, ["b", "h", "source", WIDTH])),
         "{folder}/past.onnx takes past_key_values.0.encoder.key as FLOAT"),
        (typed(2, PAST_KEY, (FLOAT, ["b", HEADS, "source", "w"])),
         "of the shape (b, 2, source, w), not as floats of (batch, heads, source"),
        (typed(2, "encoder_attention_mask", (FLOAT, ["b", "s"])), "takes encoder_attention_mask as FLOAT of the shape"),
        (typed(2, "encoder_attention_mask", (INT64, ["b"])), "takes encoder_attention_mask as INT64 of the shape"),
        (renamed(2, PAST_KEY, "past_key_values.0.cross.key"),
         "takes 'past_key_values.0.decoder.key', and not past_key_values.N.encoder.key and"),
        (renamed(0, "attention_mask", "hidden"),
         "encoder.onnx takes 'hidden': an encoder of texts takes input_ids and"),
        (typed(0, "pixels", (FLOAT, ["b", 3])), "encoder.onnx takes 'pixels'"),
        (typed(1, "encoder_hidden_states", (FLOAT, ["b", "source", STATES + 1])),
         "are not of one model: encoder_hidden_states has the size (6,) in one, and (7,) in"),
        (typed(1, "logits", (FLOAT, ["b", "s", VOCABULARY + 1]), outputs=True),
         "are not of one model: logits has the size (6,) in one, and (5,) in another"),
        (typed(1, "present.0.decoder.key", (FLOAT, ["b", HEADS + 1, "t", WIDTH]), outputs=True),
         "are not of one model: layer.0.decoder.key has the size (3, 3) in one, and (2, 3) in another"),
        (typed(1, "present.0.encoder.value", None, outputs=True), "first.onnx does not give present.0.encoder.value"),
    ],
)  # fmt: skip
def test_what_is_refused(pair, tmp_path, change, said):
    with pytest.raises(UnsupportedError) as caught:
        pair(change)
    assert said.format(folder=tmp_path) in str(caught.value)


def test_logits_of_another_vocabulary(pair, tmp_path):
    with pytest.raises(UnsupportedError) as caught:
        pair(vocab_size=VOCABULARY + 1)
    assert str(caught.value) == f"{tmp_path / 'past.onnx'} gives logits of 5 tokens, and its config has 6"


def test_logits_whose_number_is_open(pair):
    def change(encoder, first, past):
        first.outputs["logits"] = past.outputs["logits"] = (FLOAT, ["b", "s", "v"])

    assert described(pair(change, vocab_size=9).decoder.graph.outputs)["logits"][1][-1] == 9
