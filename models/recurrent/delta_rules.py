"""The gated delta rule (https://arxiv.org/abs/2412.06464), with a decay for a head or for each channel of its keys."""

from __future__ import annotations

import math

import torch

from triform.models.recurrent.passes import RecurrentPass
from triform.models.recurrent.recurrence import Call, Recurrence, linear_attention
from triform.models.spec import RecurrentState

# What transformers' functions add to the squared length of a query or key.
_EPSILON = 1e-6


def _state(call: Call) -> RecurrentState:
    key, value = call["key"], call["value"]
    return RecurrentState("recurrence", (value.shape[2], key.shape[3], value.shape[3]))


def _emit(current: RecurrentPass, call: Call) -> torch.Tensor:
    query, key, value, decay, beta = (call[name] for name in ("query", "key", "value", "g", "beta"))
    if call["use_qk_l2norm_in_kernel"]:
        query, key = _of_length_one(query), _of_length_one(key)
    is_token = current.is_token(value.shape[1])
    return linear_attention(
        current,
        query=query,
        key=key,
        value=value,
        decay=decay * (is_token if decay.dim() == 3 else is_token[..., None]),
        beta=beta * is_token,
        scale=1 / math.sqrt(key.shape[3]),
    )


def _of_length_one(x: torch.Tensor) -> torch.Tensor:
    """Each vector divided by its length, as an RMS norm, which is one operator."""
    width = x.shape[-1]
    scale = torch.full((width,), 1 / math.sqrt(width))
    (output,) = torch.onnx.ops.symbolic_multi_out(
        "triform::RMSNorm", (x, scale), {"axis": -1, "epsilon": _EPSILON / width},
        dtypes=(x.dtype,), shapes=(x.shape,), version=1,
    )  # fmt: skip
    return output


DELTA_RULE = Recurrence({"value": 1, "query": 1, "key": 1, "g": 1, "beta": 1}, _state, _emit, returns_state=True)
