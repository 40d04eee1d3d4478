"""The traced graphs of an encoder-decoder, and the files that they are written to."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from triform.models.spec import LayerCache

ENCODER_FILE, DECODER_FILE = "encoder.onnx", "decoder.onnx"


@dataclass(frozen=True)
class Graphs:
    """Both graphs, fused, and the geometry of the decoder's cache."""

    encoder: ir.Model
    decoder: ir.Model
    cache: tuple[LayerCache, ...]
