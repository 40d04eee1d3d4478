"""Small graphs in onnx's own notation, and what ONNX Runtime computes from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

_HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> g '


def model_of(text: str) -> ir.Model:
    """A graph whose values have the shapes that onnx infers."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(_HEADER + text)))


def left(model: ir.Model) -> list[str]:
    """The operators of the nodes, in order."""
    return [node.op_type for node in model.graph]


def run(model: ir.Model) -> Any:
    """The outputs for random inputs, the same each time."""
    random = np.random.default_rng(0)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(
        None, {put.name: random.normal(size=put.shape).astype(np.float32) for put in session.get_inputs()}
    )
