"""Computes in a graph what it took as inputs: the mask, the positions and whether there is a past, from the lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import add_initializer

_INT = ir.DataType.INT64
# Those that are one number.
_NUMBERS = ("use_cache_branch", "num_logits_to_keep")


class Lengths:
    """Adds nodes at the beginning of a graph.

    Rows are as `triform.runtime.graphs.concatenated.step` lays them: the shorter ones at the end of the past. Where the
    cache grows in place, they begin at its beginning, and the past has room for more.

    Attributes:
        past_lengths: the input, int32 (batch,).
    """

    def __init__(self, graph: ir.Graph, *, in_place: bool) -> None:
        """Prepare, and add nothing yet.

        Args:
            graph: takes ``input_ids`` and ``past_key_values.0.key``, by these names.
            in_place: whether its cache grows in place.
        """
        self._graph, self._in_place = graph, in_place
        self._first = graph[0]
        named = {str(value.name): value for value in graph.inputs}
        self._tokens, self._past = named["input_ids"], named["past_key_values.0.key"]
        self.past_lengths = ir.val("past_lengths", ir.DataType.INT32, ["batch"])
        graph.inputs.append(self.past_lengths)
        self._lengths: ir.Value | None = None

    def supply(self, name: str, value: ir.Value) -> None:
        """Replace an input by what is computed.

        Args:
            name: attention_mask, position_ids, cache_position, use_cache_branch or num_logits_to_keep.
            value: the input, whatever it is called.
        """
        made = {
            "attention_mask": self._mask,
            "position_ids": self._positions,
            "cache_position": self._places,
            "use_cache_branch": self._has_past,
            "num_logits_to_keep": self._all_logits,
        }[name]()
        shape = [size for size in value.shape or []]
        if name in _NUMBERS:
            made = self._add("Reshape", made, self._constant(np.array([1] * len(shape), np.int64)))
        if value.dtype != _INT:
            made = self._add("Cast", made, to=int(value.dtype or _INT))
        made.type, made.shape = value.type, value.shape
        self._graph.inputs.remove(value)
        name = str(value.name)
        value.name = f"{name}_as_before"
        made.name = name
        ir.convenience.replace_all_uses_with(value, made)

    def _column(self) -> ir.Value:
        """int64 (batch, 1): tokens of each row in the cache."""
        if self._lengths is None:
            wide = self._add("Cast", self.past_lengths, to=int(_INT))
            self._lengths = self._add("Reshape", wide, self._constant(np.array([-1, 1], np.int64)))
        return self._lengths

    def _size(self, value: ir.Value, axis: int) -> ir.Value:
        """int64 scalar."""
        shape = self._add("Shape", value)
        return self._add("Gather", shape, self._constant(np.array(axis, np.int64)), axis=0)

    def _range(self, end: ir.Value) -> ir.Value:
        """int64 (end,): from 0 on."""
        zero, one = (self._constant(np.array(number, np.int64)) for number in (0, 1))
        return self._add("Range", zero, end, one)

    def _mask(self) -> ir.Value:
        """int64 (batch, past + sequence): 1 at the tokens of each row."""
        sequence = self._size(self._tokens, 1)
        if self._in_place:
            longest = self._add("ReduceMax", self._column(), keepdims=0)
            slots = self._range(self._add("Add", longest, sequence))
            hidden = self._add("Less", slots, self._add("Add", self._column(), sequence))
            return self._add("Cast", hidden, to=int(_INT))
        past = self._size(self._past, 2)
        slots = self._range(self._add("Add", past, sequence))
        before = self._add("Less", slots, self._add("Sub", past, self._column()))
        return self._add("Cast", self._add("Not", before), to=int(_INT))

    def _positions(self) -> ir.Value:
        """int64 (batch, sequence)."""
        return self._add("Add", self._column(), self._range(self._size(self._tokens, 1)))

    def _places(self) -> ir.Value:
        """int64 (sequence,): those behind the past."""
        longest = self._add("ReduceMax", self._column(), keepdims=0) if self._in_place else self._size(self._past, 2)
        return self._add("Add", longest, self._range(self._size(self._tokens, 1)))

    def _has_past(self) -> ir.Value:
        """int64 scalar: whether there are tokens in the cache."""
        zero = self._constant(np.array(0, np.int64))
        return self._add("Cast", self._add("Less", zero, self._size(self._past, 2)), to=int(_INT))

    def _all_logits(self) -> ir.Value:
        """int64 scalar: 0, which stands for all."""
        return self._add("Cast", self._constant(np.array(0, np.int64)), to=int(_INT))

    def _constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        return add_initializer(self._graph, "lengths", array)

    def _add(self, op_type: str, *inputs: ir.Value, **attributes: int | Sequence[int]) -> ir.Value:
        node = ir.node(op_type, inputs, attributes)
        self._graph.insert_before(self._first, [node])
        return node.outputs[0]
