"""What a traceable graph is: its inputs, outputs, dynamic axes and cache geometry.

`models/` describes a graph with these records; `export/` traces it and writes what they say into the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LayerCache:
    """Geometry of one layer's key/value buffer, laid out (batch, num_key_value_heads, capacity, head_dim)."""

    num_key_value_heads: int
    head_dim: int


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
        module: called with the inputs in order; returns the outputs in order.
        inputs: the graph's inputs, in order.
        outputs: the names of the graph's outputs, in order.
        cache: one record per attention layer that keeps keys and values, in the order the layers run; empty for
            graphs without a cache. The traced module does not see the cache: `export/cache_io.py` adds it.
        max_length: most positions (tokens) one sequence may have, or None when the architecture sets no limit.
        notes: which paths the architecture took (attention, rotary), in words, for the manifest.
    """

    name: str
    module: torch.nn.Module
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    cache: tuple[LayerCache, ...]
    max_length: int | None
    notes: tuple[tuple[str, str], ...] = ()
