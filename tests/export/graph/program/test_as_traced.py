"""Programs that are not traced a second time give what PyTorch gives, and the others are still traced again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from triform.export.graph.program import simpler_operators
from triform.export.graph.program.as_traced import keep_as_traced, remember_values
from triform.export.graph.tracing import quiet_torch, trace
from triform.models.spec import GraphInput, GraphSpec


class Plain(torch.nn.Module):
    """Casts, shapes, minima, whole tensors changed in place, and numbers minus tensors."""

    def forward(self, x, few):
        torch.diff(x)  # used by nothing, and without a translation
        y = x.transpose(1, 2).contiguous().flatten(1).unflatten(1, (-1, x.shape[1]))
        y = torch.min(y, torch.max(y - 1, y * 0.5))
        y = torch.nn.functional.dropout(y, training=False).to(torch.float32)
        half, other = y.chunk(2, dim=2)
        scaled = half * 2
        scaled += other
        scaled *= half
        scaled /= 3
        inside = (scaled > 0) & (half > 0)
        return (
            scaled,
            inside.to(torch.int64),
            few.reshape(1, few.shape[0], few.shape[1]).flatten(0, 1).T,
            y.contiguous(),
            1.5 - inside.to(torch.int64),
            2 - half,
        )


class Normed(torch.nn.Module):
    """A norm whose statistics are known. torch.onnx translates its simpler form only, and its table does not say so."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4).eval()
        self.norm.running_mean = torch.tensor([0.5, -1.0, 2.0, 0.1])
        self.norm.running_var = torch.tensor([0.5, 1.5, 2.0, 0.3])

    def forward(self, x, few):
        return self.norm(x), few + 1


class ChangesViews(torch.nn.Module):
    """What is changed in place is a part of another tensor, is seen by a view of it, or may be a copy."""

    def forward(self, x, few):
        y = x * 1
        y[:, 1:] += 5
        z = x * 1
        part = z[:, :2]
        z *= 3
        copied = x.transpose(1, 2).contiguous()
        copied += 1
        return y, part, copied + x.transpose(1, 2), few + 1


class Halves(torch.nn.Module):
    """How long a half is depends on the input."""

    def forward(self, x, few):
        return *x.chunk(2, dim=2), few + 1


class Mapped(torch.nn.Module):
    """vmap leaves nodes of its own in a program."""

    def forward(self, x, few):
        return torch.vmap(lambda row: row.new_ones(()) + row.sum())(x), few * 2


class MixesTypes(torch.nn.Module):
    """Operators of ONNX take arguments of one type: each mixture needs a node that changes one of them."""

    def forward(self, x, few):
        places = torch.arange(x.shape[1])
        low = few.to(torch.float16)
        positive = x > 0
        double = x.to(torch.float64)
        return (
            x + places[None, :, None],
            places * positive[:, :, 0],
            (positive + 1) * x * places[:, None],
            low * few,
            torch.where(positive, places[None, :, None], x),
            double + x * positive,
            places / 3,
        )


def run_as_onnx(module, arguments, others):
    """The outputs of the exported graph for `others`, and whether it was traced a second time."""
    axes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}, {1: torch.export.Dim.DYNAMIC})
    with torch.no_grad(), quiet_torch():
        program = torch.export.export(module, arguments, dynamic_shapes=axes, strict=False)
        decompose, again = program.run_decompositions, []
        program.run_decompositions = lambda *args, **options: again.append(1) or decompose(*args, **options)
        keep_as_traced(program)
        remember_values()
        result = torch.onnx.export(program, args=(), dynamo=True, optimize=False, verbose=False)
    session = ort.InferenceSession(result.model_proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    values = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, others, strict=True)})
    return values, bool(again)


@pytest.mark.parametrize(
    ("module", "twice"),
    [
        (Plain(), False),
        (MixesTypes(), False),
        (Normed(), False),
        (ChangesViews(), True),
        (Halves(), True),
        (Mapped(), True),
    ],
)
def test_a_graph_gives_what_pytorch_gives(module, twice):
    chance = torch.Generator().manual_seed(0)
    arguments = (torch.randn(3, 4, 6, generator=chance), torch.randn(4, 7, generator=chance))
    others = (torch.randn(2, 4, 9, generator=chance), torch.randn(4, 0, generator=chance))
    with torch.no_grad():
        expected = module(*(tensor.clone() for tensor in others))
    values, again = run_as_onnx(module, arguments, others)
    assert again == twice
    for value, tensor in zip(values, expected, strict=True):
        assert value.shape == tuple(tensor.shape)
        assert value.dtype == tensor.numpy().dtype
        np.testing.assert_allclose(value, tensor.numpy(), atol=1e-6)


def test_what_has_no_translation_is_traced_again(monkeypatch):
    monkeypatch.delitem(simpler_operators._RULES, torch.ops.aten.batch_norm.default)
    module, x, few = Normed(), torch.randn(3, 4, 6), torch.randn(4, 7)
    inputs = (
        GraphInput("x", x, ((0, "batch"), (2, "sequence"))),
        GraphInput("few", few, ((1, "few"),)),
    )
    graph = trace(GraphSpec("norm", module, inputs, ("normed", "more"), (), None))
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString())
    normed, more = session.run(None, {"x": x[:2].numpy(), "few": few[:, :5].numpy()})
    np.testing.assert_allclose(normed, module.norm(x[:2]).detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(more, few[:, :5].numpy() + 1)
