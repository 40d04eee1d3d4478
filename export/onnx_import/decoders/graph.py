"""Gives a decoder's graph of another tool the inputs and outputs that a bundle's decoder has.

What other tools pass in beside the tokens follows from the lengths of the texts: the mask, the positions, and whether
there is a past. The graph computes it from ``past_lengths``, so that the runtime drives it like any other decoder.
Only operators whose meaning is the same in all opsets from 12 on are used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from triform.export.graph.nodes import MICROSOFT
from triform.export.onnx_import.decoders.lengths import Lengths
from triform.export.onnx_import.decoders.logits import pick_logits
from triform.export.onnx_import.graph import take_as
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.errors import ExportError, UnsupportedError, option
from triform.runtime.printable import quoted

_OLDEST_OPSET = 12
_PAST, _PRESENT = "past_key_values.%d.", "present.%d."
# What a graph may take beside tokens and cache, and its number of axes.
_COMPUTED = {
    "attention_mask": 2,
    "position_ids": 2,
    "cache_position": 1,
    "use_cache_branch": 1,
    "num_logits_to_keep": 0,
}
_CACHE_AXES = ("batch", "heads", "past", "head_dim")
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_KNOWN = f"input_ids, {', '.join(_COMPUTED)} and past_key_values.N.key and .value"


@dataclass(frozen=True)
class Names:
    """How a graph names its tensors; those of the cache have %d for the layer.

    Attributes:
        inputs: its names by ours, where they differ.
        past_key: of the inputs.
        past_value: of the inputs.
        present_key: of the outputs.
        present_value: of the outputs.
        logits: of the output.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    past_key: str = f"{_PAST}key"
    past_value: str = f"{_PAST}value"
    present_key: str = f"{_PRESENT}key"
    present_value: str = f"{_PRESENT}value"
    logits: str = "logits"


def is_decoder(graph: ir.Graph) -> bool:
    """Whether a graph takes the keys and values of a text so far, or gives those of a text."""
    names = Names()
    tensors = [(value, names.past_key) for value in graph.inputs]
    tensors += [(value, names.present_key) for value in graph.outputs]
    return any(_layer(str(value.name), pattern) is not None for value, pattern in tensors)


def adapt_decoder(model: ir.Model, path: Path, names: Names, head_dim: int | None) -> CacheInfo:
    """Change a graph in place.

    Args:
        model: the graph.
        path: its file, for messages.
        names: of its tensors.
        head_dim: size of a head, where the graph does not say.

    Returns:
        its cache, which is uneven until it was tried.

    Raises:
        UnsupportedError: an input is unknown, an output is missing, or the cache has another form.
        ExportError: its opset is too old.
    """
    if (model.opset_imports.get("") or 0) < _OLDEST_OPSET:
        raise ExportError(f"{path} has an opset below {_OLDEST_OPSET}: export the model again with a newer one")
    graph = model.graph
    parts = _sorted(graph, path, names)
    layers = _layers(parts, path, head_dim)
    in_place = _grows_in_place(parts)
    _rename(parts)
    lengths = Lengths(graph, in_place=in_place)
    for name, value in parts.computed.items():
        lengths.supply(name, value)
    _widen_tokens(graph, parts.tokens)
    _as_floats(graph, parts)
    parts.logits.name = "all_logits" if parts.logits.name == "logits" else parts.logits.name
    positions, picked = pick_logits(graph, parts.logits)
    presents = [value for pair in parts.presents for value in pair]
    graph.outputs[:] = [picked, *presents]
    pasts = [value for pair in parts.pasts for value in pair]
    graph.inputs[:] = [parts.tokens, lengths.past_lengths, positions, *pasts]
    return CacheInfo("float32", layers, growth="in_place" if in_place else "concatenated")


@dataclass
class _Parts:
    """A graph's inputs and outputs; those of the cache by layer, keys and values."""

    tokens: ir.Value
    computed: dict[str, ir.Value]
    pasts: list[tuple[ir.Value, ir.Value]]
    presents: list[tuple[ir.Value, ir.Value]]
    logits: ir.Value


def _sorted(graph: ir.Graph, path: Path, names: Names) -> _Parts:
    ours = {theirs: name for name, theirs in names.inputs.items()}
    plain: dict[str, ir.Value] = {}
    past: dict[tuple[int, int], ir.Value] = {}
    for value in graph.inputs:
        name = ours.get(str(value.name), str(value.name))
        place = _place(str(value.name), (names.past_key, names.past_value))
        if place is not None:
            past[place] = value
        elif name == "input_ids" or name in _COMPUTED:
            plain[name] = _checked(value, name, path)
        else:
            raise UnsupportedError(f"{path} takes the input {quoted(value.name)}, which is unknown; known are {_KNOWN}")
    if "input_ids" not in plain:
        raise UnsupportedError(f"{path} does not take input_ids, which a decoder of texts does")
    outputs = {str(value.name): value for value in graph.outputs}
    present = {
        place: value
        for name, value in outputs.items()
        if (place := _place(name, (names.present_key, names.present_value))) is not None
    }
    layers = sorted({layer for layer, _ in past})
    if not layers:
        raise UnsupportedError(
            f"{path} takes no keys and values of a text so far: choose the graph with a past with {option('file')}, or "
            "export the model with one"
        )
    missing = [place for place in _places(len(layers)) if place not in past or place not in present]
    if missing or names.logits not in outputs or len(present) != len(past):
        layer, part = missing[0] if missing else (0, 0)
        what = names.logits if names.logits not in outputs else (names.present_key, names.present_value)[part] % layer
        raise UnsupportedError(f"{path} does not give {what}, or takes no such past: its cache has another form")
    pairs = [[(of[layer, 0], of[layer, 1]) for layer in layers] for of in (past, present)]
    tokens = plain.pop("input_ids")
    return _Parts(tokens, plain, pairs[0], pairs[1], outputs[names.logits])


def _places(layers: int) -> list[tuple[int, int]]:
    return [(layer, part) for layer in range(layers) for part in (0, 1)]


def _place(name: str, patterns: tuple[str, str]) -> tuple[int, int] | None:
    """The layer, and 0 for keys or 1 for values."""
    for part, pattern in enumerate(patterns):
        layer = _layer(name, pattern)
        if layer is not None:
            return layer, part
    return None


def _layer(name: str, pattern: str) -> int | None:
    found = re.fullmatch(re.escape(pattern).replace("%d", "([0-9]+)"), name)
    return int(found.group(1)) if found else None


def _checked(value: ir.Value, name: str, path: Path) -> ir.Value:
    sizes = list(value.shape or [])
    axes = _COMPUTED.get(name, 2)
    by_token = axes == 2 or name == "cache_position"
    fixed = by_token and any(isinstance(size, int) for size in sizes)
    # A single number may have an axis of its own.
    fits = len(sizes) == axes or (not by_token and sizes in ([], [1]))
    if fixed or not fits or (value.dtype not in _INTEGERS and value.dtype != ir.DataType.BOOL):
        raise UnsupportedError(f"{path} takes {value.name} as {value.dtype} of the shape {sizes}, which is unknown")
    return value


def _layers(parts: _Parts, path: Path, head_dim: int | None) -> list[LayerCacheInfo]:
    layers = []
    for key, value in parts.pasts:
        sizes = list(key.shape or [])
        heads, own = (sizes[1], sizes[3]) if len(sizes) == len(_CACHE_AXES) else (None, None)
        width = own if isinstance(own, int) else head_dim
        for past in (key, value):
            _check_past(past, heads, width, path)
        if isinstance(heads, int) and isinstance(width, int):
            layers.append(LayerCacheInfo(heads, width))
    return layers


def _check_past(past: ir.Value, heads: object, width: object, path: Path) -> None:
    """Refuse keys or values that are not of these sizes, or that have other fixed ones."""
    sizes = list(past.shape or [])
    fits = isinstance(heads, int) and isinstance(width, int) and past.dtype in _FLOATS
    fits = fits and len(sizes) == len(_CACHE_AXES) and sizes[1] == heads
    fits = fits and not isinstance(sizes[0], int) and not isinstance(sizes[2], int)
    if not fits or (isinstance(sizes[3], int) and sizes[3] != width):
        raise UnsupportedError(
            f"{path} takes {past.name} as {past.dtype} of the shape ({', '.join(map(str, sizes))}), not as floats of "
            f"({', '.join(_CACHE_AXES)}); export the checkpoint instead"
        )


def _grows_in_place(parts: _Parts) -> bool:
    """Whether all keys and values go through GroupQueryAttention, which writes into the buffers that it reads."""
    for pasts, presents in zip(parts.pasts, parts.presents, strict=True):
        for past, present in zip(pasts, presents, strict=True):
            users = {use.node for use in past.uses()}
            node = present.producer()
            if past.dtype != ir.DataType.FLOAT or node is None or users != {node}:
                return False
            if (node.domain, node.op_type) != (MICROSOFT, "GroupQueryAttention"):
                return False
    return True


def _rename(parts: _Parts) -> None:
    for index in range(len(parts.pasts)):
        for part, (past, present) in enumerate(zip(parts.pasts[index], parts.presents[index], strict=True)):
            end = ("key", "value")[part]
            past.name, present.name = f"{_PAST % index}{end}", f"{_PRESENT % index}{end}"
    parts.tokens.name = "input_ids"


def _widen_tokens(graph: ir.Graph, tokens: ir.Value) -> None:
    """Take int64 tokens, whatever the graph takes."""
    tokens.shape = ir.Shape(["batch", "sequence"])
    take_as(graph, tokens, ir.DataType.INT64)


def _as_floats(graph: ir.Graph, parts: _Parts) -> None:
    """Take and give float32 keys and values, whatever the graph computes with."""
    for index, pasts in enumerate(parts.pasts):
        for part, past in enumerate(pasts):
            past.shape = _sizes(past, "past")
            present = parts.presents[index][part]
            take_as(graph, past, ir.DataType.FLOAT)
            if present.dtype != ir.DataType.FLOAT:
                wide = ir.node("Cast", [present], {"to": int(ir.DataType.FLOAT)})
                graph.append(wide)
                name, present.name = present.name, f"{present.name}_as_before"
                wide.outputs[0].name, wide.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
                pair = parts.presents[index]
                parts.presents[index] = (wide.outputs[0], pair[1]) if part == 0 else (pair[0], wide.outputs[0])
            parts.presents[index][part].shape = _sizes(past, "total")


def _sizes(past: ir.Value, axis: str) -> ir.Shape:
    sizes = list(past.shape or [])
    last = sizes[3] if isinstance(sizes[3], int) else "head_dim"
    return ir.Shape(["batch", sizes[1], axis, last])
