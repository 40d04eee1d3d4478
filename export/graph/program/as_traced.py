"""Spares an export what torch.onnx does again for every graph, or for nothing: most of the time that tracing takes."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir
import onnxscript
import torch

from triform.export.graph.program.simpler_operators import simplify

Table = Mapping[Any, Callable[..., Any]]


@functools.cache
def remember_signatures() -> None:
    """Spare torch.onnx what it reads and computes of each of its 500 translations and of each operator of ONNX.

    onnxscript parses the source of a translation to tell its domain, which the translation itself knows. torch.onnx
    makes a signature of the annotations of each for every graph, and of an operator for every node.
    """
    with _if_it_is_there():
        traced = onnxscript.TracedOnnxFunction
        read = functools.cache(traced.function_ir.fget)
        traced.function_ir = property(
            lambda function: _Described(function.opset.domain, functools.partial(read, function))
        )
    with _if_it_is_there():
        of_annotations: Any = importlib.import_module("torch.onnx._internal.exporter._schemas")
        of_annotations.op_signature_from_function = functools.cache(of_annotations.op_signature_from_function)
    with _if_it_is_there():
        _remember_operators(onnx_ir.schemas.OpSignature)


class _Described:
    """A function of onnxscript whose source is parsed when more than its domain is asked for."""

    def __init__(self, domain: str, read: Callable[[], Any]) -> None:
        self.domain, self._read = domain, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._read(), name)


def _remember_operators(signatures: Any) -> None:
    make, made = signatures.from_op_schema, dict[tuple[str, str, int], Any]()

    def from_op_schema(schema: Any) -> Any:
        key = schema.domain, schema.name, schema.since_version
        if key not in made:
            made[key] = make(schema)
        return made[key]

    signatures.from_op_schema = from_op_schema


@functools.cache
def remember_values() -> None:
    """Have torch.onnx's pass that makes changes of type explicit compute the nodes that it changes alone.

    It runs the whole program on fake tensors, to know the types of the arguments of each node. The trace has left them
    at the nodes. What the pass changes keeps its type, so that what the nodes after it give is as it was.
    """
    with _if_it_is_there():
        passes: Any = importlib.import_module("torch.onnx._internal.fx.passes.type_promotion")
        _compute_changes_alone(passes._TypePromotionInterpreter, passes.get_type_promotion_rule)


def _compute_changes_alone(interpreters: Any, find_rule: Callable[..., Any]) -> None:
    compute, promote, current = interpreters.run_node, interpreters._maybe_promote_node, interpreters._set_current_node

    def run_node(interpreter: Any, node: torch.fx.Node) -> Any:
        if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
            return compute(interpreter, node)
        with current(interpreter, node):
            rule = find_rule(node, interpreter.type_promotion_table)
            if rule is not None:
                promote(interpreter, node, rule)
        return node.meta["val"]

    interpreters.run_node = run_node


def _if_it_is_there() -> contextlib.AbstractContextManager[None]:
    """A later PyTorch may have moved what is not its public interface: then tracing only takes longer."""
    return contextlib.suppress(ImportError, AttributeError)


def keep_as_traced(program: torch.export.ExportedProgram) -> None:
    """Have `program.run_decompositions` return the program itself if its operators can be translated as they are.

    The table that torch.onnx calls it with lists the operators that have no translation. PyTorch decomposes them by
    tracing the whole program again, which takes longer than the first trace. Programs that change parts of tensors in
    place, or that hold other programs, go that way: only it makes them functional.
    """
    decompose = program.run_decompositions

    def run_decompositions(table: Table | None = None, **options: Any) -> Any:
        if table is None or not _is_plain(program.graph_module):
            return decompose(table, **options)
        simple = simplify(program.graph)
        _name_outputs(program)
        if simple and not any(target in table for target in _operators(program.graph_module)):
            return program
        return decompose(table, **options)

    program.run_decompositions = run_decompositions


def _name_outputs(program: torch.export.ExportedProgram) -> None:
    """Tell the signature which nodes are the outputs now: it knew those that were dropped."""
    results = program.graph.output_node().args[0]
    for output, result in zip(program.graph_signature.output_specs, results, strict=True):
        if isinstance(result, torch.fx.Node):
            output.arg.name = result.name


def _is_plain(module: torch.fx.GraphModule) -> bool:
    """Whether it is made of operators and of functions of sizes alone: no other programs, no vmap."""
    alone = not any(isinstance(child, torch.fx.GraphModule) for child in module.children())
    return alone and all(
        isinstance(target, torch._ops.OpOverload) or _computes_sizes(target) for target in _operators(module)
    )


def _operators(module: torch.fx.GraphModule) -> list[Any]:
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def _computes_sizes(target: Any) -> bool:
    """Whether it is one of Python's or PyTorch's functions of numbers, such as operator.mul."""
    return getattr(target, "__module__", None) in ("_operator", "math") or target in (torch.sym_max, torch.sym_min)
