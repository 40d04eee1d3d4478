"""Finds the length at which a graph changes the frequencies of its rotary embedding, as longrope does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from triform.export.graph.nodes import constant, producer
from triform.models.attention.rotary import switching_length
from triform.runtime.errors import UnsupportedError

# Where onnxruntime-genai's builder says that the second table stands behind the first, and from which row on.
_BEHIND = ("multirotarycacheconcatoffset", "multi_rotary_cache_concat_offset")
# By operator, the input with the table of cosines; that of sines follows.
_TABLES = {"GroupQueryAttention": 7, "RotaryEmbedding": 2}


def rotary_switch(graph: ir.Graph, config: Any, genai: dict[str, Any] | None, path: Path) -> int | None:
    """The most tokens of a text for the first of two sets of frequencies (longrope, arXiv:2402.13753).

    A longer text has the second set for all of its positions. Keys in a cache are rotated once, so that no text can
    grow past that length.

    Args:
        graph: of the decoder. onnxruntime-genai's builder gives it an If that chooses between two tables.
        config: of the checkpoint; graphs of other tools have the first set alone.
        genai: content of genai_config.json.
        path: of the graph, for messages.

    Returns:
        None if there is one set.

    Raises:
        UnsupportedError: tables are chosen by another condition than a number of tokens.
    """
    found = [switching_length(config), *_behind(genai or {})]
    for node in graph:
        place = _TABLES.get(node.op_type)
        choice = None if place is None or place >= len(node.inputs) else producer(node.inputs[place], "If", "Where")
        if choice is not None:
            found.append(_bound(choice, path))
    return min((length for length in found if length is not None), default=None)


def _bound(choice: ir.Node, path: Path) -> int:
    condition = producer(choice.inputs[0], "Greater")
    bound = constant(condition.inputs[1]) if condition is not None else None
    if bound is None or bound.size != 1:
        raise UnsupportedError(
            f"{path} chooses between tables of its rotary embedding by a condition that is not known; "
            "export the checkpoint itself"
        )
    return int(bound.item())


def _behind(content: Any) -> list[int | None]:
    """Numbers under the names of `_BEHIND`, wherever they stand."""
    if isinstance(content, list):
        return [length for item in content for length in _behind(item)]
    if not isinstance(content, dict):
        return []
    own = [int(value) for name, value in content.items() if name.lower() in _BEHIND and str(value).isdigit()]
    return [*own, *(length for value in content.values() for length in _behind(value))]
