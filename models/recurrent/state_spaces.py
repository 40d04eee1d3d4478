"""The scans of Mamba (https://arxiv.org/abs/2312.00752) and Mamba-2 (https://arxiv.org/abs/2405.21060).

Both are gated linear attention: a token's C is its query, B its key, its input times the step size its value. Mamba has
a head for each channel; in Mamba-2 the channels of a head share a decay.
"""

from __future__ import annotations

import math

import torch

from triform.models.recurrent.passes import RecurrentPass
from triform.models.recurrent.recurrence import Call, Recurrence, linear_attention
from triform.models.spec import RecurrentState


def _mamba2_state(call: Call) -> RecurrentState:
    values = call["hidden_states"]
    return RecurrentState("recurrence", (values.shape[2], call["B"].shape[3], values.shape[3]))


def _emit_mamba2(current: RecurrentPass, call: Call) -> torch.Tensor:
    values, step = call["hidden_states"], call["dt"]
    if call["dt_bias"] is not None:
        step = step + call["dt_bias"]
    if call["dt_softplus"]:
        step = torch.nn.functional.softplus(step)
    step = _limited(step, *call["dt_limit"]) * current.is_token(values.shape[1])
    output = linear_attention(
        current,
        query=call["C"],
        key=call["B"],
        value=values * step[..., None],
        decay=step * call["A"],
        scale=1.0,
    )
    return output if call["D"] is None else output + values * call["D"][..., None]


def _limited(step: torch.Tensor, least: float, most: float) -> torch.Tensor:
    step = step.clamp(min=least)
    return step if math.isinf(most) else step.clamp(max=most)


def _mamba_state(call: Call) -> RecurrentState:
    channels, width = call["A"].shape
    return RecurrentState("recurrence", (channels, width, 1))


def _emit_mamba(current: RecurrentPass, call: Call) -> torch.Tensor:
    # The tensors of this function have the tokens last.
    values, step, key, query = (call[name].transpose(1, 2) for name in ("hidden_states", "dt", "B", "C"))
    if call["delta_bias"] is not None:
        step = step + call["delta_bias"]
    if call["delta_softplus"]:
        step = torch.nn.functional.softplus(step)
    step = step * current.is_token(values.shape[1])
    output = linear_attention(
        current,
        query=query[:, :, None],
        key=key[:, :, None],
        value=(values * step)[..., None],
        decay=step[..., None] * call["A"],
        scale=1.0,
    ).squeeze(-1)
    if call["D"] is not None:
        output = output + values * call["D"]
    if call["z"] is not None:
        output = output * torch.nn.functional.silu(call["z"].transpose(1, 2))
    return output.transpose(1, 2)


MAMBA2_SCAN = Recurrence({"hidden_states": 1, "dt": 1, "B": 1, "C": 1}, _mamba2_state, _emit_mamba2)
MAMBA_SCAN = Recurrence({"hidden_states": 2, "dt": 2, "B": 2, "C": 2, "z": 2}, _mamba_state, _emit_mamba)
