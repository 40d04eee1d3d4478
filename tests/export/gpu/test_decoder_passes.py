"""Passes for GPUs on graphs by hand, run on the CPU before and after: what is counted, picked and chosen."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from triform.export.gpu.decoder import check_gpu_decoder, choose_inside, lengths_outside
from triform.export.graph.nodes import nodes, sweep
from triform.models.errors import UnsupportedModelError

FLOAT, INT64, INT32 = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32
IDS = np.array([[3, 1, 2], [5, 4, 6]])
WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


class Graph:
    """A graph in the making: each call adds a node and gives its output, or outputs."""

    def __init__(self, **inputs):
        self.inputs = {name: ir.val(name, *kind) for name, kind in inputs.items()}
        self.nodes, self.constants = [], []

    def __call__(self, op_type, *inputs, outputs=1, domain="", type=None, shape=None, **attributes):
        node = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=outputs)
        self.nodes.append(node)
        if type is not None:
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(type), ir.Shape(shape)
        return node.outputs[0] if outputs == 1 else node.outputs

    def constant(self, array):
        value = ir.val(f"constant.{len(self.constants)}", const_value=ir.tensor(np.asarray(array)))
        self.constants.append(value)
        return value

    def model(self, **outputs):
        for name, value in outputs.items():
            value.name = name
        graph = ir.Graph(list(self.inputs.values()), list(outputs.values()), nodes=self.nodes,
                         initializers=self.constants, opset_imports={"": 17, "com.microsoft": 1}, name="g")  # fmt: skip
        return ir.Model(graph, ir_version=10)


def run(model, **feeds):
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def attention(graph, *, width=8, bias=False):
    """An operator that is never run, with the lengths that it takes."""
    lengths = graph("Sub", graph.inputs["past_lengths"], graph.constant(np.int32(-2)), type=INT32, shape=["batch"])
    total = graph("ReduceMax", lengths, keepdims=0)
    states = graph("Identity", graph.inputs["input_ids"])
    past = [ir.val(f"past_key_values.0.{part}", FLOAT, ["batch", 2, "past", width]) for part in ("key", "value")]
    graph.inputs |= {value.name: value for value in past}
    rest = [None, None, None, states] if bias else []
    return graph("GroupQueryAttention", states, states, states, *past, lengths, total, *rest, outputs=3,
                 domain="com.microsoft")  # fmt: skip


def decoder(**options):
    """Logits are those of picked tokens' states; counts are 0, 1, … up to the number of tokens."""
    graph = Graph(
        input_ids=(INT64, ["batch", "sequence"]), past_lengths=(INT32, ["batch"]),
        logits_positions=(INT64, ["batch", "num_logits"]),
    )  # fmt: skip
    ids = graph.inputs["input_ids"]
    attended = attention(graph, **options)
    floats = graph("Cast", ids, to=int(FLOAT))
    column = graph("Unsqueeze", floats, graph.constant([-1]))
    states = graph("Mul", column, graph.constant(np.array([1, 10, 100], np.float32)), type=FLOAT,
                   shape=["batch", "sequence", 3])  # fmt: skip
    places = graph("Unsqueeze", graph.inputs["logits_positions"], graph.constant([-1]))
    picked = graph("GatherND", states, places, batch_dims=1, type=FLOAT, shape=["batch", "num_logits", 3])
    logits = graph("MatMul", picked, graph.constant(WEIGHTS), type=FLOAT, shape=["batch", "num_logits", 4])
    length = graph("Squeeze", graph("Shape", ids, start=1, end=2))
    length.type, length.shape = ir.TensorType(INT64), ir.Shape([])
    counts = graph("Range", graph.constant(0), length, graph.constant(1), type=INT64, shape=["sequence"])
    every = graph("Range", graph.constant(0), graph.constant(4), graph.constant(1), type=INT64, shape=[4])
    odd = graph("Range", graph.constant(1), length, graph.constant(2), type=INT64, shape=["odd"])
    return graph.model(logits=logits, counts=graph("Identity", counts), every=every, odd=odd, present=attended[1])


def test_lengths_come_from_outside():
    model = decoder()
    lengths_outside(model)
    graph = model.graph
    types = {
        value.name: (value.dtype, [getattr(size, "value", size) for size in value.shape]) for value in graph.inputs
    }
    assert types == {
        "input_ids": (INT64, ["batch", "sequence"]), "past_key_values.0.key": (FLOAT, ["batch", 2, "past", 8]),
        "past_key_values.0.value": (FLOAT, ["batch", 2, "past", 8]), "seqlens_k": (INT32, ["batch"]),
        "total_sequence_length": (INT32, [1]), "logits_rows": (INT64, ["num_logits"]),
    }  # fmt: skip
    (node,) = nodes(graph, "GroupQueryAttention")
    assert [value.name for value in node.inputs[5:7]] == ["seqlens_k", "total_sequence_length"]
    assert not nodes(graph, "ReduceMax", "Sub", "GatherND")
    assert [getattr(size, "value", size) for size in graph.outputs[0].shape] == ["num_logits", 1, 4]


def test_rows_are_picked_and_counts_are_sums():
    """Row r of the flat rows is place r % 3 of text r // 3."""
    model = decoder()
    lengths_outside(model)
    # Attention has no kernel that would take this.
    del model.graph.outputs[-1]
    sweep(model)
    for value in [value for value in model.graph.inputs if not value.uses()]:
        model.graph.inputs.remove(value)
    rows = np.array([5, 0, 2])
    found = run(model, input_ids=IDS, logits_rows=rows)
    states = IDS.reshape(-1, 1) * np.array([1, 10, 100], np.float32)
    np.testing.assert_array_equal(found["logits"], (states[rows] @ WEIGHTS)[:, None])
    assert found["counts"].tolist() == [0, 1, 2] and found["counts"].dtype == np.int64
    # What is constant, or does not count from 0 by 1, stays.
    assert (found["every"].tolist(), found["odd"].tolist()) == ([0, 1, 2, 3], [1])
    assert len(nodes(model.graph, "Range")) == 2 and len(nodes(model.graph, "CumSum")) == 1


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("order", [True, False])
def test_what_is_added_and_taken_again(alike, order):
    """(a + b) - b, where both b are computed by nodes of their own, is a; (b + a) - b is left alone."""
    graph = Graph(input_ids=(INT64, ["batch", "sequence"]), past_lengths=(INT32, ["batch"]),
                  logits_positions=(INT64, ["batch", "n"]))  # fmt: skip
    attended = attention(graph)
    ids = graph.inputs["input_ids"]
    one, other = (graph("Shape", ids, start=place, end=place + 1) for place in (1, 1 if alike else 0))
    first = graph("Neg", graph("Shape", ids, start=0, end=1))
    total = graph("Add", first, one) if order else graph("Add", one, first)
    taken = graph("Sub", total, other)
    logits = graph("Cast", graph("Identity", taken), to=int(FLOAT), type=FLOAT, shape=[1, 1, 1])
    model = graph.model(logits=logits, present=attended[1])
    lengths_outside(model)
    assert bool(nodes(model.graph, "Sub")) is not (alike and order)
    del model.graph.outputs[-1]
    sweep(model)
    for value in [value for value in model.graph.inputs if not value.uses()]:
        model.graph.inputs.remove(value)
    # 2 texts of 3 tokens.
    assert run(model, input_ids=IDS)["logits"].ravel().tolist() == [-2 if alike else -2 + 3 - 2]


def picking(**changes):
    """A graph that picks in another way."""
    graph = Graph(input_ids=(INT64, ["batch", "sequence"]), past_lengths=(INT32, ["batch"]),
                  logits_positions=(INT64, ["batch", "n"]))  # fmt: skip
    attended = attention(graph)
    values = {"batch_dims": 1, "width": 3} | changes
    column = graph("Unsqueeze", graph.inputs["input_ids"], graph.constant([-1]))
    states = graph("Expand", graph("Cast", column, to=int(FLOAT)), graph.constant([1, 1, 3]), type=FLOAT,
                   shape=["b", "s", values["width"]])  # fmt: skip
    indices = graph("Unsqueeze", graph.inputs["logits_positions"], graph.constant([-1]))
    if "indices" in values:
        indices = graph.constant(values["indices"])
    picked = graph("GatherND", states, indices, batch_dims=values["batch_dims"])
    picked.type, picked.shape = ir.TensorType(FLOAT), ir.Shape(["b", "n", "w"])
    return graph, attended, picked


def test_unknown_ways_to_pick_are_refused():
    for changes in ({"batch_dims": 0}, {"width": "open"}):
        graph, attended, picked = picking(**changes)
        model = graph.model(logits=picked, present=attended[1])
        with pytest.raises(UnsupportedModelError, match="picks the tokens to compute logits for in an unknown way"):
            lengths_outside(model)


def test_a_width_that_tracing_lost_is_that_of_the_product():
    graph, attended, picked = picking(width="open")
    weights = graph.constant(WEIGHTS.T.copy())
    product = graph("FusedMatMul", picked, weights, domain="com.microsoft", type=FLOAT, shape=["b", "n", 3])
    lengths_outside(graph.model(logits=product, present=attended[1]))


def test_constant_places_of_one_number_are_picked_along_the_first_axis():
    graph, attended, picked = picking(batch_dims=0, indices=[[1], [0], [1]])
    model = graph.model(logits=graph("Identity", picked), present=attended[1])
    lengths_outside(model)
    assert not nodes(model.graph, "GatherND") and len(nodes(model.graph, "Gather")) == 1
    del model.graph.outputs[-1]
    sweep(model)
    for value in [value for value in model.graph.inputs if not value.uses()]:
        model.graph.inputs.remove(value)
    expected = np.repeat(IDS[[1, 0, 1], :, None], 3, -1)
    np.testing.assert_array_equal(run(model, input_ids=IDS)["logits"], expected)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("logits", "chosen"),
    [
        ([1, 3, 2], 1), ([3, 3, 1], 0), ([-1, -5, -INF], 0), ([1, NAN, 2], -1), ([1, 2, INF], -1), ([NAN] * 3, -1),
        ([INF, -INF, 0], -1), ([0, 0, 0], 0), ([-INF] * 3, 0),
    ],
)  # fmt: skip
def test_the_likeliest_token_is_chosen_in_the_graph(logits, chosen):
    graph = Graph(x=(FLOAT, ["num_logits", 1, 3]))
    model = graph.model(logits=graph("Identity", graph.inputs["x"]))
    choose_inside(model.graph)
    rows = np.array([[logits], [[9, 1, 1]]], np.float32)
    found = run(model, x=rows)
    assert found["next_ids"].tolist() == [[chosen], [0]] and found["next_ids"].dtype == np.int64
    np.testing.assert_array_equal(found["logits"], rows)


def simple(**options):
    graph = Graph(
        input_ids=(INT64, ["batch", "sequence"]), past_lengths=(INT32, ["batch"]), **options.pop("inputs", {})
    )
    extra = options.pop("extra", None)
    attended = attention(graph, **options)
    more = {"more": graph(extra, graph.inputs["input_ids"], graph.constant([1]), outputs=2)[0]} if extra else {}
    return graph.model(logits=attended[0], **more)


# Of exported decoders the widths are multiples of 8: others get zeros behind their channels.
@pytest.mark.parametrize("width", [8, 16, 64, 256, "open"])
def test_heads_that_cuda_takes(width):
    check_gpu_decoder(simple(width=width))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 257}, r"^its heads are 257 wide; on GPUs ONNX Runtime's attention takes up to 256$"),
        ({"width": 264}, "its heads are 264 wide"), ({"bias": True}, "its attention adds a bias to the scores"),
        ({"extra": "TopK"}, "it chooses among experts, which bundles for GPUs do not have yet"),
        ({"inputs": {"past_states.0": (FLOAT, ["batch", 3])}}, "it has states of fixed size"),
    ],
)  # fmt: skip
def test_what_cuda_does_not_take(options, said):
    with pytest.raises(UnsupportedModelError, match=said):
        check_gpu_decoder(simple(**options))


def test_what_is_no_state_of_fixed_size():
    check_gpu_decoder(simple(inputs={"states.0": (FLOAT, ["batch", 3])}))
