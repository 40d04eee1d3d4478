"""Describes a graph to trace: its inputs, outputs, dynamic axes and cache geometry.

`models/` fills these records; `export/` traces the graph and writes the manifest from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from triform.models.alike_layers import AlikeLayers

# What models call the input that hides padding.
MASKS = ("attention_mask", "padding_mask")


@dataclass(frozen=True)
class LayerCache:
    """Geometry of one layer's key/value buffer, laid out (batch, num_key_value_heads, capacity, head_dim)."""

    num_key_value_heads: int
    head_dim: int


@dataclass(frozen=True)
class RecurrentState:
    """A state of fixed size, laid out (batch, *shape).

    Attributes:
        kind: "convolution" for the last inputs of a causal convolution, "recurrence" for a matrix that each token
            changes.
        shape: of one row.
    """

    kind: Literal["convolution", "recurrence"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphInput:
    """One graph input: the example tensor it is traced with and the names of its dynamic axes."""

    name: str
    example: torch.Tensor
    axes: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class GraphSpec:
    """A module ready to be traced.

    Attributes:
        name: file stem of the graph in the bundle, e.g. ``"decoder"``.
        module: takes the inputs in order, returns the outputs in order.
        inputs: the graph's inputs, in order.
        outputs: the names of the graph's outputs, in order.
        cache: one record per attention layer that keeps keys and values, in the order the layers run; empty for
            graphs without a cache. The traced module does not see the cache: `export/graph/cache.py` adds it.
        max_length: most tokens of a sequence; None when the architecture sets no limit.
        states: the states of fixed size, in the order the layers run. The traced module takes them as its last inputs
            and gives them as its last outputs.
        notes: how attention and rotary embeddings are traced, for the manifest.
        alike: which layers of the module compute the same with other weights, so that one of them may be traced for
            all; None if that is not known.
    """

    name: str
    module: torch.nn.Module
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    cache: tuple[LayerCache, ...]
    max_length: int | None
    notes: tuple[tuple[str, str], ...] = ()
    states: tuple[RecurrentState, ...] = ()
    alike: AlikeLayers | None = None


# From a model's outputs, by transformers' names, to the graph's outputs by name.
Outputs = Callable[[Mapping[str, Any]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Frames:
    """How many frames of output a row of input becomes: ``(length + offset) // stride``.

    Attributes:
        stride: lengths of input from one frame to the next.
        offset: see above; negative where a frame needs more input than a stride.
    """

    stride: int
    offset: int

    def count(self, length: int) -> int:
        """The frames of a row of input; at least 0."""
        return max(0, (length + self.offset) // self.stride)


@dataclass(frozen=True)
class EncoderTask:
    """The computation of a model to trace.

    Attributes:
        inputs: names of the model's arguments, in the order the graph takes them; `attention_mask` is 1 at tokens and
            0 at padding on the right. Without it, rows have no padding.
        outputs: computes the graph's outputs; called with the model's outputs and inputs, and always with an
            `attention_mask`.
        picks_positions: whether the graph takes `logits_positions`, and computes logits only there.
        call: name of the model's method to call; None for its forward.
        arguments: further arguments of the call.
        beside: names of further inputs, int64 (batch,), which only `outputs` reads.
        examples: inputs to run the model on, by name: two rows, the second shorter where there is a mask. Those of
            texts are made up when this is empty.
        any_length: whether rows may have any length; otherwise that of the examples.
        frames: for audio, how long a row's outputs are that have an axis of time; None where it is as long as the row.
    """

    inputs: tuple[str, ...]
    outputs: Outputs
    picks_positions: bool = False
    call: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    examples: Mapping[str, torch.Tensor] = field(default_factory=dict)
    any_length: bool = True
    frames: Frames | None = None

    @property
    def mask(self) -> str | None:
        """Name of the input that is 1 at tokens and 0 at padding; None where rows have no padding."""
        return next((name for name in self.inputs if name in MASKS), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the graph's inputs, in order."""
        return (*self.inputs, *self.beside, *(("logits_positions",) if self.picks_positions else ()))
