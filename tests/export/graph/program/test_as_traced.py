"""Programs that are not traced a second time give what PyTorch gives, and the others are still traced again."""

from __future__ import annotations

import ast
import inspect
import textwrap

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import onnxscript
import pytest
import torch
from onnxscript.function_libs.torch_lib import registration

from triform.export.graph.program import simpler_operators
from triform.export.graph.program.as_traced import keep_as_traced, remember_signatures, remember_values
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
        remember_signatures()
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


def test_translations_know_their_domains_without_being_parsed():
    remember_signatures()
    functions = [
        function
        for overloads in registration.default_registry.values()
        for function in (*overloads.overloads, *overloads.complex)
        if isinstance(function, onnxscript.TracedOnnxFunction)
    ]
    assert len(functions) > 300
    for function in functions[::10]:
        described = function.function_ir
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function.func))).body[0]
        assert described.name == parsed.name
        assert described.domain == described._read().domain


def test_the_signature_of_an_operator_is_made_once_and_is_that_of_its_schema():
    remember_signatures()
    for name, version in (("Clip", 13), ("Clip", 12), ("Split", 18)):
        schema = onnx.defs.get_schema(name, version)
        signature = ir.schemas.OpSignature.from_op_schema(schema)
        assert ir.schemas.OpSignature.from_op_schema(onnx.defs.get_schema(name, version)) is signature
        assert [item.name for item in signature.inputs] == [item.name for item in schema.inputs]
        assert {item.name for item in signature.attributes} == set(schema.attributes)
        assert signature.since_version == schema.since_version


def test_nodes_name_lines_again_after_a_trace():
    module, x = Normed(), torch.randn(3, 4, 6)
    inputs = (GraphInput("x", x, ((0, "batch"),)), GraphInput("few", torch.randn(4, 7), ()))
    trace(GraphSpec("norm", module, inputs, ("normed", "more"), (), None))
    assert torch.fx.config.do_not_emit_stack_traces is False
