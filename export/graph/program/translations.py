"""How some PyTorch operators become ONNX nodes, where torch.onnx has no translation or an unsuitable one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset21 as op

# Winitzki's approximation of the inverse error function has a relative error of 2e-3 with this constant.
_WINITZKI = 0.147
_NEWTON_STEPS = 3


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """X @ weight.T + bias. torch.onnx's own depends on the rank of x; `find_linears` recognizes this one."""
    product = op.MatMul(x, op.Transpose(weight, perm=[1, 0]))
    return product if bias is None else op.Add(product, bias)


def inverse_erf(x: Any) -> Any:
    """The y with erf(y) = x, of numbers between -1 and 1: an approximation, and Newton's method from there."""
    log = op.Log(op.Sub(1.0, op.Mul(x, x)))
    half = op.Add(2 / (math.pi * _WINITZKI), op.Mul(log, 0.5))
    root = op.Sqrt(op.Sub(op.Mul(half, half), op.Div(log, _WINITZKI)))
    y = op.Mul(op.Sign(x), op.Sqrt(op.Sub(root, half)))
    for _ in range(_NEWTON_STEPS):
        slope = op.Mul(op.Exp(op.Neg(op.Mul(y, y))), 2 / math.sqrt(math.pi))
        y = op.Sub(y, op.Div(op.Sub(op.Erf(y), x), slope))
    return y


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.linear.default: linear,
    torch.ops.prims.erf_inv.default: inverse_erf,
}
