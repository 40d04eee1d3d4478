"""Graphs behind a condition, and inputs that are asked for their sizes, on graphs by hand that are run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from triform.export.onnx_import.encoder_decoders.branches import replace_sizes, take_branch
from triform.runtime.errors import UnsupportedError

PATH = Path("folder/decoder.onnx")
FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
info = helper.make_tensor_value_info


def run(model, **feeds):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def branch(name, by, output):
    """Twice or three times what the whole graph computes, by a constant of its own."""
    constant = helper.make_tensor("factor", FLOAT, [], [by])
    nodes = [helper.make_node("Mul", ["moved", "factor"], [output])]
    return helper.make_graph(nodes, name, [], [info(output, FLOAT, [2])], [constant])


def merged(*, before=(), after=(), switched="use_cache_branch", inner="y", inputs=()):
    """y is (x + 1) * 3 with a past, and (x + 1) * 2 without."""
    three, two = branch("then", 3, inner), branch("else", 2, inner)
    nodes = [
        helper.make_node("Add", ["x", "one"], ["moved"]), *before,
        helper.make_node("If", [switched], ["y"], then_branch=three, else_branch=two),
        *after,
    ]  # fmt: skip
    outputs = [info("y", FLOAT, [2]), *([info("z", FLOAT, [2])] if after else [])]
    given = [info("x", FLOAT, [2]), info("use_cache_branch", BOOL, [1]), *inputs]
    constants = [helper.make_tensor("one", FLOAT, [], [1.0]), helper.make_tensor("none", TensorProto.INT64, [0], [])]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "g", given, outputs, [item for item in constants if item.name in used])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("inner", ["y", "out"])
@pytest.mark.parametrize(("past", "factor"), [(True, 3), (False, 2)])
@pytest.mark.parametrize("way", [(), ("Identity",), ("Reshape",), ("Squeeze",), ("Cast", "Identity", "Cast")])
def test_one_branch_stands_in_place_of_the_condition(way, past, factor, inner):
    before, last = [], "use_cache_branch"
    for place, operator in enumerate(way):
        more = {"Reshape": ["none"]}.get(operator, [])
        to = {"Cast": {"to": BOOL if place == len(way) - 1 else FLOAT}}.get(operator, {})
        before.append(helper.make_node(operator, [last, *more], [f"same{place}"], **to))
        last = f"same{place}"
    model = merged(before=before, switched=last, inner=inner)
    take_branch(model, PATH, past=past)
    assert [value.name for value in model.graph.inputs] == ["x"] and not [n for n in model.graph if n.op_type == "If"]
    assert run(model, x=np.array([1, 5], np.float32)) == {"y": pytest.approx([2 * factor, 6 * factor])}


def test_nodes_behind_the_condition_read_the_branch():
    model = merged(after=[helper.make_node("Neg", ["y"], ["z"])])
    take_branch(model, PATH, past=True)
    found = run(model, x=np.array([1, 5], np.float32))
    assert found["z"].tolist() == [-6, -18] and found["y"].tolist() == [6, 18]


def test_a_graph_without_a_condition_stays():
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "g", [info("x", FLOAT, [2])], [info("y", FLOAT, [2])]
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    take_branch(model, PATH, past=True)
    assert [node.op_type for node in model.graph] == ["Neg"]


def test_what_the_choice_is_used_for_besides():
    more = [helper.make_node("Cast", ["use_cache_branch"], ["number"], to=FLOAT),
            helper.make_node("Add", ["x", "number"], ["z"])]  # fmt: skip
    with pytest.raises(UnsupportedError) as caught:
        take_branch(merged(after=more), PATH, past=True)
    said = "folder/decoder.onnx takes use_cache_branch for something else than the choice between two graphs"
    assert str(caught.value) == said


def test_a_condition_of_something_else_stays():
    model = merged(switched="other", inputs=[info("other", BOOL, [1])])
    take_branch(model, PATH, past=True)
    assert [node.op_type for node in model.graph] == ["Add", "If"]
    assert [value.name for value in model.graph.inputs] == ["x", "other"]


def sized(*, users=("Shape",), shape=("b", "s", 6), **attributes):
    """A graph that asks an input for its shape, and takes keys of the same batch and source."""
    nodes = [helper.make_node(user, ["states"], [f"out{i}"], **attributes) for i, user in enumerate(users)]
    kind = {"Shape": TensorProto.INT64, "Identity": FLOAT}
    nodes += [helper.make_node("Neg", ["keys"], ["negative"])]
    outputs = [info("negative", FLOAT, None), *(info(f"out{i}", kind[user], None) for i, user in enumerate(users))]
    # An output that is replaced stays behind another node.
    tail = [helper.make_node("Identity", [f"out{i}"], [f"end{i}"]) for i in range(len(users))]
    outputs = [outputs[0], *(info(f"end{i}", kind[user], None) for i, user in enumerate(users))]
    given = [info("states", FLOAT, list(shape)), info("keys", FLOAT, ["b", 2, "s", 3])]
    graph = helper.make_graph([*nodes, *tail], "g", given, outputs)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def replaced(model):
    states, keys = model.graph.inputs
    return replace_sizes(model.graph, states, keys)


@pytest.mark.parametrize("count", [1, 2])
def test_sizes_are_those_of_another_input(count):
    model = sized(users=("Shape",) * count)
    assert replaced(model) and [value.name for value in model.graph.inputs] == ["keys"]
    found = run(model, keys=np.zeros((4, 2, 5, 3), np.float32))
    assert [found[f"end{place}"].tolist() for place in range(count)] == [[4, 5, 6]] * count


def test_an_input_that_nothing_reads_is_not_taken():
    model = sized(users=())
    assert replaced(model) and [value.name for value in model.graph.inputs] == ["keys"]
    assert [node.op_type for node in model.graph] == ["Neg"]


@pytest.mark.parametrize(
    "options",
    [{"users": ("Identity",)}, {"users": ("Shape", "Identity")}, {"shape": ("b", "s", "width")}, {"start": 1}],
    ids=str,
)
def test_what_is_more_than_sizes_stays(options):
    model = sized(**options)
    before = [node.op_type for node in model.graph]
    assert not replaced(model)
    assert [value.name for value in model.graph.inputs] == ["states", "keys"]
    assert [node.op_type for node in model.graph] == before
