"""Traces a prepared PyTorch module to an ONNX graph, with torch.export and torch.onnx."""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch
import torch.fx.config

from triform.export.graph.cache import add_cache
from triform.export.graph.cross_attention import (
    count_keys,
    lower_cross_attention,
    lower_cross_weights,
    lower_summed_cross_attention,
)
from triform.export.graph.program.as_traced import keep_as_traced, remember_signatures, remember_values
from triform.export.graph.program.repeated_layers import IrregularLayersError, repeat_layers
from triform.export.graph.program.translations import TRANSLATIONS
from triform.export.graph.weights import keep_as_stored
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.patching import patched
from triform.models.spec import GraphSpec
from triform.models.stored_weights import untouched_weights

OPSET = 21


def trace(spec: GraphSpec) -> ir.Model:
    """Trace `spec.module` into one graph whose inputs, outputs and dynamic axes have the names of `spec`.

    The graph shares its weights with the module's parameters; nothing is copied, and none of them is read.

    Raises:
        UnsupportedModelError: the module cannot be traced, for example because its control flow depends on its inputs.
    """
    examples = tuple(item.example for item in spec.inputs)
    axes: tuple[Any, ...] = tuple({axis: torch.export.Dim.DYNAMIC for axis, _ in item.axes} for item in spec.inputs)
    parameters = inspect.signature(spec.module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        axes = (axes,)
    with untouched_weights(spec.module) as stored, _garbage_kept():
        model = _traced_in_part(spec, examples, axes) or _traced(spec, examples, axes)
    keep_as_stored(model.graph, stored)
    _name_axes(model.graph, spec)
    add_cache(model, spec.cache)
    lower_cross_attention(model)
    lower_cross_weights(model)
    lower_summed_cross_attention(model)
    count_keys(model)
    return model


def _traced_in_part(spec: GraphSpec, examples: tuple[Any, ...], axes: tuple[Any, ...]) -> ir.Model | None:
    """A trace of a layer of each kind, repeated; None where that is not known to give what a whole trace gives."""
    if spec.alike is None:
        return None
    with contextlib.suppress(UnsupportedModelError, IrregularLayersError):
        with spec.alike.shortened():
            model = _traced(spec, examples, axes)
        repeat_layers(model.graph, spec, spec.alike)
        return model
    return None


def _traced(spec: GraphSpec, examples: tuple[Any, ...], axes: tuple[Any, ...]) -> ir.Model:
    try:
        result = _exported(spec, examples, axes)
    except Exception as error:  # torch.export and torch.onnx raise errors of a dozen kinds
        raise UnsupportedModelError(f"PyTorch cannot trace it: {first_line(error)[:200]}") from error
    if result is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: ir.Model = result.model
    return model


def _exported(spec: GraphSpec, examples: tuple[Any, ...], axes: tuple[Any, ...]) -> Any:
    # The graph drops which lines of Python made each node.
    no_lines = patched([(torch.fx.config, "do_not_emit_stack_traces", True)])
    with torch.no_grad(), quiet_torch(), no_lines:
        remember_signatures()
        remember_values()
        program = _program(spec, examples, axes)
        keep_as_traced(program)
        try:
            return _translated(program, spec)
        except torch.onnx.errors.OnnxExporterError:
            # An operator lacks a translation, and torch.onnx's table does not say so.
            return _translated(_program(spec, examples, axes), spec)


def _program(spec: GraphSpec, examples: tuple[Any, ...], axes: tuple[Any, ...]) -> torch.export.ExportedProgram:
    program = torch.export.export(spec.module, examples, dynamic_shapes=axes, strict=False)
    _check_lengths(program, spec)
    _drop_guards(program)
    _drop_idle_squeezes(program)
    return program


def _translated(program: torch.export.ExportedProgram, spec: GraphSpec) -> Any:
    return torch.onnx.export(
        program,
        args=(),
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=OPSET,
        input_names=[item.name for item in spec.inputs],
        output_names=list(spec.outputs),
        custom_translation_table=TRANSLATIONS,
    )


def _drop_guards(program: Any) -> None:
    """Drop torch.export's own checks of the inputs, which are no part of a graph, and fail for some models."""
    program._guards_code = []


def _drop_idle_squeezes(program: Any) -> None:
    """Drop squeezes of dynamic axes, which do nothing in PyTorch; ONNX's operator fails where an axis is not 1 long."""
    for node in list(program.graph.nodes):
        if node.target is not torch.ops.aten.squeeze.dim:
            continue
        tensor, axis = node.args
        if isinstance(tensor.meta["val"].shape[axis], torch.SymInt):
            node.replace_all_uses_with(tensor)
            program.graph.erase_node(node)


def _check_lengths(program: Any, spec: GraphSpec) -> None:
    """Refuse a trace that is valid for some lengths only, such as those of one block; torch.export does not tell."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for name, item in zip(program.graph_signature.user_inputs, spec.inputs, strict=True):
        for axis, axis_name in item.axes:
            size = placeholders[name].meta["val"].shape[axis]
            known = program.range_constraints.get(size.node.expr) if isinstance(size, torch.SymInt) else None
            if axis_name == "sequence" and known is not None and known.upper < (spec.max_length or 0):
                raise UnsupportedModelError(f"it would read no more than {known.upper} tokens")


def _name_axes(graph: ir.Graph, spec: GraphSpec) -> None:
    """Name each dynamic axis as in the spec; torch.export calls them s57 and the like."""
    names: dict[str, str] = {}
    for value, item in zip(graph.inputs, spec.inputs, strict=True):
        for axis, name in item.axes:
            symbol = value.shape[axis] if value.shape is not None else None
            if isinstance(symbol, ir.SymbolicDim) and symbol.value is not None:
                names[symbol.value] = name
    for value in _all_values(graph):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(output for node in graph for output in node.outputs)]


def _renamed(dim: int | ir.SymbolicDim, names: dict[str, str]) -> int | str | None:
    return dim if isinstance(dim, int) else names.get(str(dim.value), dim.value)


@contextlib.contextmanager
def _garbage_kept() -> Iterator[None]:
    """Look for garbage only afterwards: a trace makes many small objects that stay, and is a sixth faster."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Hide warnings, log lines and standard output of torch.onnx, which are not for the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
