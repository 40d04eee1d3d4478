"""Gated linear attention (arXiv:2312.06635), with a decay for each head."""

from __future__ import annotations

import torch

from triform.models.recurrent.passes import RecurrentPass
from triform.models.recurrent.recurrence import Call, Recurrence, linear_attention
from triform.models.spec import RecurrentState


def _state(call: Call) -> RecurrentState:
    return RecurrentState("recurrence", (call["value"].shape[2], call["key"].shape[3], call["value"].shape[3]))


def _emit(current: RecurrentPass, call: Call) -> torch.Tensor:
    is_token = current.is_token(call["value"].shape[1])
    return linear_attention(
        current,
        query=call["query"],
        key=call["key"],
        value=call["value"] * is_token[..., None],
        decay=call["decay"] * is_token,
        scale=1.0,
    )


GATED = Recurrence({"value": 1, "query": 1, "key": 1, "decay": 1}, _state, _emit)
