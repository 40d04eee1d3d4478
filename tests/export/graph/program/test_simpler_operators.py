"""Operators that are written as simpler ones compute the same; those that cannot be stay, and are told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from triform.export.graph.program.simpler_operators import simplify

aten = torch.ops.aten
X = torch.arange(24.0).reshape(2, 3, 4) - 7
Y = X.flip(0) / 3
WHOLE, OTHER = torch.arange(6).reshape(2, 3), torch.tensor([[3, 5, 1], [0, 2, 6]])
FOUR = torch.tensor([1.0, 2.0, 3.0, 4.0])


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def simplified(function, *inputs):
    """What is left of a traced function: its result, its operators, and whether all is simple."""
    copies = tuple(tensor.clone() for tensor in inputs)
    program = torch.export.export(Function(function), copies)
    traced = program.graph_module
    simple = simplify(traced.graph)
    traced.graph.lint()
    traced.recompile()
    operators = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    results = traced(*(tensor.clone() for tensor in inputs))
    return results[-1], operators, simple


def batch_norm(training):
    return lambda x, y: functional.batch_norm(x, y[0] + 2, y[1], y[2], y[0], training=training)


def in_place(change):
    """Of a tensor that nothing else is a part of."""

    def run(x, y):
        made = x * 2
        getattr(made, change)(y)
        return made + x

    return run


@pytest.mark.parametrize(
    ("function", "inputs", "expected"),
    [
        (lambda x: x.transpose(0, 1).contiguous() + 1, [X], [aten.transpose.int, aten.clone.default, aten.add.Tensor]),
        (lambda x: functional.dropout(x, 0.5, training=False) + 1, [X], [aten.add.Tensor]),
        (lambda x: x.to(torch.float64) + 1, [X], [aten._to_copy.default, aten.add.Tensor]),
        (lambda x: x.to(torch.float32) + 1, [X], [aten.add.Tensor]),
        (lambda x: x.T + 1, [X[0]], [aten.permute.default, aten.add.Tensor]),
        (torch.min, [X, Y], [aten.minimum.default]),
        (torch.max, [X, Y], [aten.maximum.default]),
        (lambda x, y: x & y, [WHOLE, OTHER], [aten.bitwise_and.Tensor]),
        (lambda x, y: x | y, [WHOLE, OTHER], [aten.bitwise_or.Tensor]),
        (lambda x: 5 - x, [X], [aten.neg.default, aten.add.Tensor]),
        (lambda x: 0.5 - x, [WHOLE], [aten._to_copy.default, aten.neg.default, aten.add.Tensor]),
        (lambda x: torch.rsub(x, 5, alpha=1), [X], [aten.neg.default, aten.add.Tensor]),
        (lambda x: x.chunk(2)[1] + 1, [torch.arange(5.0)], None),
        (lambda x: x.chunk(2, -1)[1] + 1, [X], None),
        (lambda x: x.chunk(3, 1)[2] + 1, [X], None),
        (lambda x: x.flatten(1) + 1, [X], None),
        (lambda x: x.transpose(0, 2).flatten(0, 1) + 1, [X], None),
        (lambda x: x.unflatten(2, (2, 2)) + 1, [X], None),
        (lambda x: x.transpose(0, 2).reshape(-1, 3) + 1, [X], None),
        (lambda x: x.reshape(4, -1) + 1, [X], None),
        (batch_norm(training=False), [X, FOUR[:3] + torch.arange(3.0)[:, None]], None),
        *(
            (in_place(f"{name}_"), [X, Y + 9], [aten.mul.Tensor, getattr(aten, name).Tensor, aten.add.Tensor])
            for name in ("add", "mul", "div")
        ),
    ],
)
def test_the_same_is_computed_by_simpler_operators(function, inputs, expected):
    found, operators, simple = simplified(function, *inputs)
    assert torch.equal(found, function(*(tensor.clone() for tensor in inputs)))
    assert found.dtype == function(*(tensor.clone() for tensor in inputs)).dtype
    assert simple
    assert expected is None or operators == expected


def view_changed(x: Tensor) -> Tensor:
    made = x * 2
    made[0].add_(5)
    return made + 1


def changed_then_read(x: Tensor) -> Tensor:
    """What is read before the change is as it was, what is read after it is not."""
    made = x * 2
    before = made + 1
    made.mul_(3)
    return before + made


def integers_changed(x: Tensor) -> Tensor:
    made = x * 2
    made.add_(x)
    return made


@pytest.mark.parametrize(
    ("function", "inputs", "simple"),
    [
        (view_changed, [X], False),
        (changed_then_read, [X], True),
        (integers_changed, [WHOLE], True),
        (lambda x: torch.rsub(x, 5, alpha=2), [X], False),
        (batch_norm(training=True), [X, FOUR[:3] + torch.zeros(3, 3)], False),
    ],
)
def test_what_cannot_be_replaced_with_certainty_stays(function, inputs, simple):
    found, _, told = simplified(function, *inputs)
    assert torch.equal(found, function(*(tensor.clone() for tensor in inputs)))
    assert told is simple


def test_dropout_that_drops_stays():
    _, operators, simple = simplified(lambda x: functional.dropout(x, 0.5, training=True), X)
    assert not simple and aten.dropout.default in operators


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x.flatten(0, 1) * 2, (20, 4)),
        (lambda x: x.flatten(1) * 2, (2, 40)),
        (lambda x: x.unflatten(2, (2, 2)) * 2, (2, 10, 2, 2)),
        (lambda x: x.transpose(0, 1).flatten(1) * 2, (10, 8)),
    ],
)
def test_sizes_that_the_trace_does_not_know(function, shape):
    """The graph takes texts of other lengths than the traced one."""
    program = torch.export.export(Function(function), (X,), dynamic_shapes=(({1: torch.export.Dim("n", min=2)},),))
    traced = program.graph_module
    assert simplify(traced.graph)
    traced.recompile()
    longer = torch.arange(80.0).reshape(2, 10, 4)
    [found] = traced(longer)
    assert found.shape == shape and torch.equal(found, function(longer))
