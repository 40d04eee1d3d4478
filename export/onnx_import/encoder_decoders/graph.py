"""Makes the two graphs of a bundle of the graphs of an encoder-decoder that another tool exported.

The encoder gives the keys and values of the source, once for a text, and the decoder takes them. The decoder is the
graph that continues an answer: with no tokens before, it begins one. So a bundle's decoder is one graph as any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.export.graph.nodes import sweep
from triform.export.onnx_import.decoders.graph import Names, adapt_decoder
from triform.export.onnx_import.encoder_decoders.branches import replace_sizes, take_branch
from triform.export.onnx_import.encoder_decoders.cross import cut_cross, graft
from triform.export.onnx_import.encoder_decoders.parts import Parts
from triform.export.onnx_import.graph import adapt_input, append, take_as
from triform.export.onnx_import.layout import read_graph
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.printable import quoted

# How graphs name what they keep of an answer.
NAMES = Names(
    inputs={"attention_mask": "decoder_attention_mask"},
    past_key="past_key_values.%d.decoder.key",
    past_value="past_key_values.%d.decoder.value",
    present_key="present.%d.decoder.key",
    present_value="present.%d.decoder.value",
)
_TEXT_INPUTS, _SOUND = ("input_ids", "attention_mask"), "input_features"
_MASK, _STATES = "encoder_attention_mask", "encoder_hidden_states"
_CROSS = re.compile(r"past_key_values\.([0-9]+)\.encoder\.(key|value)")
_PARTS = ("key", "value")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class Pair:
    """The graphs of a bundle.

    Attributes:
        encoder: of the source.
        decoder: of the answer.
        cache: what it keeps of an answer.
    """

    encoder: ir.Model
    decoder: ir.Model
    cache: CacheInfo


def make_pair(parts: Parts, vocab_size: int) -> Pair:
    """Read the graphs and make a bundle's of them.

    Args:
        parts: their files.
        vocab_size: tokens of an answer, as the config says.

    Raises:
        UnsupportedError: an input is unknown, an output is missing, the cache has another form, or the graphs are not
            of one model.
        ExportError: a file cannot be read, or its opset is too old.
    """
    encoder, cut, decoder = (read_graph(path) for path in (parts.encoder, parts.first, parts.past))
    take_branch(cut, parts.first, past=False)
    take_branch(decoder, parts.past, past=True)
    _check_known(decoder.graph, parts.past)
    cross = _cross(decoder.graph, parts.past)
    sizes = [_sizes(value, parts.past) for pair in cross for value in pair]
    _check_one_model(parts, encoder, cut, decoder)
    masked = _adapt_source(encoder.graph, parts.encoder)
    names = [f"present.{index}.encoder.{part}" for index in range(len(cross)) for part in _PARTS]
    cut_cross(cut, parts.first, names, sizes)
    cache = _adapt_decoder(decoder, parts.past, cross, masked=masked)
    if len(cache.layers) != len(cross):
        raise UnsupportedError(
            f"{parts.past} has {len(cross)} layers that read the source, and {len(cache.layers)} that read the answer"
        )
    _give(encoder, graft(encoder, cut), sizes, masked=masked)
    for model in (encoder, decoder):
        sweep(model)
    logits = decoder.graph.outputs[0]
    width = list(logits.shape or [None])[-1]
    if isinstance(width, int) and width != vocab_size:
        raise UnsupportedError(f"{parts.past} gives logits of {width} tokens, and its config has {vocab_size}")
    logits.shape = ir.Shape(["batch", "num_logits", vocab_size])
    return Pair(encoder, decoder, cache)


def _check_known(graph: ir.Graph, path: Path) -> None:
    """Refuse what neither a decoder nor an encoder-decoder takes."""
    masks = [value for value in graph.inputs if value.name == _MASK]
    for value in masks:
        if len(list(value.shape or [])) != 2 or not (value.dtype or ir.DataType.UNDEFINED).is_integer():
            raise UnsupportedError(f"{path} takes {_MASK} as {value.dtype} of the shape {list(value.shape or [])}")


def _cross(graph: ir.Graph, path: Path) -> list[tuple[ir.Value, ir.Value]]:
    """The inputs for keys and values of the source, by layer."""
    found = {}
    for value in graph.inputs:
        match = _CROSS.fullmatch(str(value.name))
        if match is not None:
            found[int(match.group(1)), match.group(2)] = value
    layers = sorted({layer for layer, _ in found})
    whole = [(layer, part) for layer in range(len(layers)) for part in _PARTS]
    if not layers or sorted(found) != sorted(whole):
        taken = [str(value.name) for value in graph.inputs]
        shown = next((name for name in taken if "past" in name), ", ".join(taken))
        raise UnsupportedError(
            f"{path} takes {quoted(shown)}, and not past_key_values.N.encoder.key and .value for each layer: its cache "
            "has another form"
        )
    return [(found[layer, "key"], found[layer, "value"]) for layer in layers]


def _sizes(value: ir.Value, path: Path) -> tuple[int, int]:
    """Heads and head_dim."""
    sizes = list(value.shape or [])
    heads, width = (sizes[1], sizes[3]) if len(sizes) == 4 else (None, None)
    if not isinstance(heads, int) or not isinstance(width, int) or value.dtype not in _FLOATS:
        raise UnsupportedError(
            f"{path} takes {value.name} as {value.dtype} of the shape ({', '.join(map(str, sizes))}), not as floats of "
            "(batch, heads, source, head_dim); export the checkpoint instead"
        )
    return heads, width


def _check_one_model(parts: Parts, encoder: ir.Model, first: ir.Model, past: ir.Model) -> None:
    """Refuse graphs whose sizes do not fit together."""
    if encoder.opset_imports.get("") != first.opset_imports.get(""):
        raise UnsupportedError(
            f"{parts.encoder.name} and {parts.first.name} in {parts.encoder.parent} have other opsets"
        )
    began, continued = _presents(first.graph.outputs, "present"), _presents(past.graph.inputs, "past_key_values")
    layers = (len({name.split(".")[1] for name in sizes}) for sizes in (began, continued))
    one, other = layers
    if one != other:
        raise UnsupportedError(
            f"the graphs in {parts.encoder.parent} are not of one model: {parts.first.name} has {one} layers, and "
            f"{parts.past.name} takes the keys and values of {other}"
        )
    given = {_STATES: _width(encoder.graph.outputs, "last_hidden_state"), **began, "logits": _logits(first)}
    taken = {_STATES: _width(first.graph.inputs, _STATES), **continued, "logits": _logits(past)}
    for name, size in given.items():
        if _differ(size, taken.get(name)):
            raise UnsupportedError(
                f"the graphs in {parts.encoder.parent} are not of one model: {name} has the size {size} in one, and "
                f"{taken[name]} in another"
            )


def _presents(values: Iterable[ir.Value], prefix: str) -> dict[str, object]:
    """Heads and head_dim of keys and values, by a name without its first part."""
    result: dict[str, object] = {}
    for value in values:
        sizes = list(value.shape or [])
        if str(value.name).startswith(f"{prefix}.") and len(sizes) == 4:
            result[str(value.name).replace(prefix, "layer", 1)] = (sizes[1], sizes[3])
    return result


def _width(values: Iterable[ir.Value], name: str) -> object:
    sizes = next((list(value.shape or []) for value in values if value.name == name), [])
    return (sizes[-1],) if sizes else None


def _logits(model: ir.Model) -> object:
    return _width(model.graph.outputs, NAMES.logits)


def _differ(one: object, other: object) -> bool:
    """Whether a number is another one; sizes that a graph leaves open differ from none."""
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return False
    pairs = zip(one, other, strict=False)
    return any(isinstance(left, int) and isinstance(right, int) and left != right for left, right in pairs)


def _adapt_source(graph: ir.Graph, path: Path) -> bool:
    """Take a source as a bundle's encoder does; returns whether there is a mask."""
    taken = sorted(str(value.name) for value in graph.inputs)
    if taken == [_SOUND]:
        [value] = graph.inputs
        sizes = list(value.shape or [])
        if len(sizes) != 3 or value.dtype not in _FLOATS or isinstance(sizes[0], int):
            raise UnsupportedError(f"{path} takes {_SOUND} as {value.dtype} of the shape {sizes}, which is unknown")
        value.shape = ir.Shape(["batch", sizes[1], sizes[2] if isinstance(sizes[2], int) else "frames"])
        take_as(graph, value, ir.DataType.FLOAT)
        return False
    unknown = [name for name in taken if name not in (*_TEXT_INPUTS, _SOUND)]
    if unknown or taken != sorted(_TEXT_INPUTS):
        raise UnsupportedError(
            f"{path} takes {quoted(', '.join(unknown or taken))}: an encoder of texts takes "
            f"{' and '.join(_TEXT_INPUTS)}, and one of speech takes {_SOUND}"
        )
    for value in graph.inputs:
        adapt_input(graph, value, path)
    return True


def _adapt_decoder(model: ir.Model, path: Path, cross: list[tuple[ir.Value, ir.Value]], *, masked: bool) -> CacheInfo:
    graph = model.graph
    apart = [value for pair in cross for value in pair]
    for index, pair in enumerate(cross):
        for part, value in zip(_PARTS, pair, strict=True):
            value.name = f"cross_key_values.{index}.{part}"
            graph.inputs.remove(value)
    states = next((value for value in graph.inputs if value.name == _STATES), None)
    if states is not None and not replace_sizes(graph, states, cross[0][0]):
        raise UnsupportedError(f"{path} computes with {_STATES} at each step, and not with keys and values made of it")
    mask = next((value for value in graph.inputs if value.name == _MASK), None)
    if mask is None and masked:
        raise UnsupportedError(f"{path} does not take {_MASK}, so that it would read the padding of texts")
    if mask is not None:
        graph.inputs.remove(mask)
        if not masked:
            raise UnsupportedError(f"{path} takes {_MASK}, which a model that reads whole recordings has no use for")
        apart.append(mask)
    cache = adapt_decoder(model, path, NAMES, None)
    for value in apart:
        graph.inputs.append(value)
        take_as(graph, value, ir.DataType.INT32 if value is mask else ir.DataType.FLOAT)
        sizes = list(value.shape or [])
        value.shape = ir.Shape(["batch", "source"] if value is mask else ["batch", sizes[1], "source", sizes[3]])
    return cache


def _give(encoder: ir.Model, cross: list[ir.Value], sizes: list[tuple[int, int]], *, masked: bool) -> None:
    """Let the encoder give the keys and values of the source, and its mask."""
    graph, outputs = encoder.graph, []
    for place, (value, (heads, width)) in enumerate(zip(cross, sizes, strict=True)):
        output = (
            append(graph, "Cast", [value], to=int(ir.DataType.FLOAT)) if value.dtype != ir.DataType.FLOAT else value
        )
        output.name = f"cross_key_values.{place // 2}.{_PARTS[place % 2]}"
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape(["batch", heads, "source", width])
        outputs.append(output)
    if masked:
        mask = next(value for value in graph.inputs if value.name == "attention_mask")
        output = append(graph, "Cast", [mask], to=int(ir.DataType.INT32))
        output.name, output.type = _MASK, ir.TensorType(ir.DataType.INT32)
        output.shape = ir.Shape(["batch", "source"])
        outputs.append(output)
    graph.outputs[:] = outputs
