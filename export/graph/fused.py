"""Traces a prepared model and fuses its graph; the same for every form with one graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack

import onnx_ir as ir

from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import quiet_torch, trace
from triform.export.report import Clock
from triform.models.errors import UnsupportedModelError
from triform.models.spec import GraphSpec
from triform.runtime.errors import UnsupportedError


def fused_graph(
    name: str,
    prepare: Callable[[], tuple[GraphSpec, ExitStack]],
    clock: Clock,
    kind_of: Callable[[ir.Value], Hashable] = lambda _: None,
) -> tuple[ir.Model, GraphSpec]:
    """Prepare a model, trace it and fuse its graph.

    Args:
        name: of the model, for messages.
        prepare: returns what to trace, and a stack that undoes the preparation when closed.
        clock: times the steps.
        kind_of: see `fuse`.

    Raises:
        UnsupportedError: the architecture cannot be traced.
    """
    try:
        with clock.step("trace"), quiet_torch():
            spec, prepared = prepare()
            with prepared:
                graph = trace(spec)
        with clock.step("fuse"), quiet_torch():
            fuse(graph, kind_of)
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{name} cannot be exported: {error}") from error
    return graph, spec


def encoder_notes(graph: ir.Model) -> dict[str, str]:
    """Notes for the manifest on an encoder's graph: its attention operator."""
    replaced = any(node.op_type == "MultiHeadAttention" for node in graph.graph)
    return {"attention": "com.microsoft::MultiHeadAttention" if replaced else "the model's own"}
