"""What surrounds a trace: lengths that it is valid for, names of axes, silence, and squeezes that do nothing."""

from __future__ import annotations

import gc
import logging
import warnings
from types import SimpleNamespace

import onnx_ir as ir
import pytest
import torch

from triform.export.graph import tracing
from triform.models.errors import UnsupportedModelError


class Sum(torch.nn.Module):
    def forward(self, x):
        return x.sum(1)


@pytest.fixture(scope="module")
def program():
    """Of rows of 2 to 10 numbers."""
    length = torch.export.Dim("length", min=2, max=10)
    return torch.export.export(Sum(), (torch.ones(3, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: length},))


@pytest.mark.parametrize(
    ("axes", "most", "refused"),
    [
        ({1: "sequence"}, 11, True), ({1: "sequence"}, 10, False), ({1: "sequence"}, None, False),
        # Of other axes, and of those without a limit, nothing is asked.
        ({1: "batch"}, 11, False), ({0: "sequence"}, 11, False), ({}, 11, False),
    ],
)  # fmt: skip
def test_traces_of_some_lengths_only(program, axes, most, refused):
    spec = SimpleNamespace(inputs=[SimpleNamespace(axes=list(axes.items()))], max_length=most)
    if not refused:
        tracing._check_lengths(program, spec)
        return
    with pytest.raises(UnsupportedModelError, match=r"^it would read no more than 10 tokens$"):
        tracing._check_lengths(program, spec)


class Squeezed(torch.nn.Module):
    def forward(self, x):
        return x.squeeze(0).squeeze(2) + 1


def test_squeezes_of_dynamic_axes_are_dropped():
    """PyTorch's do nothing there; that of an axis which is 1 long stays."""
    x = torch.arange(12.0).view(3, 4, 1)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Squeezed(), (x,), dynamic_shapes=shapes)

    def squeezes():
        return sum(node.target is torch.ops.aten.squeeze.dim for node in program.graph.nodes)

    before = squeezes()
    tracing._drop_idle_squeezes(program)
    assert (before, squeezes()) == (2, 1)


def test_axes_have_the_names_of_the_spec():
    def value(name, *shape):
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))

    one, two, bare = value("x", "s57", 4, "s9"), value("y", "s57", "s3"), ir.Value(name="z")
    node = ir.node("Neg", [one])
    node.outputs[0].shape = ir.Shape(["s9", "s57", "other", 2])
    unknown = ir.node("Abs", [bare])
    graph = ir.Graph([one, two, bare], [*node.outputs, *unknown.outputs], nodes=[node, unknown], name="g")
    axes = ([(0, "batch"), (1, "fixed"), (2, "sequence")], [(0, "batch")], [(0, "batch")])
    tracing._name_axes(graph, SimpleNamespace(inputs=[SimpleNamespace(axes=item) for item in axes]))
    shapes = [
        [dim if isinstance(dim, int) else dim.value for dim in item.shape] for item in (one, two, node.outputs[0])
    ]
    assert shapes == [["batch", 4, "sequence"], ["batch", "s3"], ["sequence", "batch", "other", 2]]
    assert bare.shape is None and unknown.outputs[0].shape is None


def test_nothing_is_said_to_the_user(capsys, caplog):
    level = logging.root.manager.disable
    with warnings.catch_warnings(record=True) as caught, tracing.quiet_torch():
        print("hidden")
        warnings.warn("hidden", stacklevel=1)
        logging.getLogger("x").warning("hidden")
        logging.getLogger("x").error("shown")
    assert (capsys.readouterr().out, caught) == ("", [])
    assert [record.message for record in caplog.records] == ["shown"]
    assert logging.root.manager.disable == level


@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_looked_for_afterwards_if_it_was_before(before):
    enabled = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with tracing._garbage_kept():
            assert not gc.isenabled()
        assert gc.isenabled() == before
    finally:
        (gc.enable if enabled else gc.disable)()
