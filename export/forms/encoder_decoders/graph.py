"""The traced graphs of an encoder-decoder."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from triform.models.spec import LayerCache


@dataclass(frozen=True)
class Graphs:
    """Both graphs, fused, and the geometry of the decoder's cache."""

    encoder: ir.Model
    decoder: ir.Model
    cache: tuple[LayerCache, ...]
