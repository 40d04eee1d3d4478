"""A function of transformers that carries a state along a text, and what takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from triform.models.recurrent.passes import RecurrentPass
from triform.models.spec import RecurrentState

# The arguments of a call by their names, with those that have a default.
Call = Mapping[str, Any]


@dataclass(frozen=True)
class Recurrence:
    """How calls of a function are traced.

    Attributes:
        token_axes: by argument, the axis of a tensor along which the tokens are. The result has the axis of the first.
        state: from a call to its state.
        emit: from the pass and a call to the result; traces to operators, and appends the new state to the pass.
        returns_state: whether the function returns a state beside its result.
    """

    token_axes: Mapping[str, int]
    state: Callable[[Call], RecurrentState]
    emit: Callable[[RecurrentPass, Call], torch.Tensor]
    returns_state: bool = False


def linear_attention(
    current: RecurrentPass,
    *,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float,
) -> torch.Tensor:
    """One LinearAttention node, which reads and writes the state of the layer that is traced now.

    The operator is described in docs/ContribOperators.md of ONNX Runtime. A token whose decay, and whose value or
    `beta`, are 0 leaves the state as it is.

    Args:
        current: the pass.
        query: float (batch, sequence, key heads, key width).
        key: as `query`.
        value: float (batch, sequence, heads, value width); consecutive heads share a key head.
        decay: float (batch, sequence, heads), or (batch, sequence, heads, key width): natural logarithms.
        beta: float (batch, sequence, heads), the rate of the delta rule; None for a recurrence without it.
        scale: multiplies the output.

    Returns:
        float (batch, sequence, heads, value width).
    """
    past = current.next_past()
    batch, length, heads, width = value.shape
    inputs = [query.flatten(2), key.flatten(2), value.flatten(2), past, decay.flatten(2)]
    output, present = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::LinearAttention",
        [*inputs, beta] if beta is not None else inputs,
        {
            "q_num_heads": query.shape[2],
            "kv_num_heads": heads,
            "scale": scale,
            "update_rule": "gated" if beta is None else "gated_delta",
        },
        dtypes=(value.dtype, past.dtype),
        shapes=((batch, length, heads * width), past.shape),
        version=1,
    )
    current.present.append(present)
    return output.reshape(batch, length, heads, width)
