"""The causal convolution of each channel with the tokens before, as ONNX Runtime's CausalConvWithState.

The operator is described in docs/ContribOperators.md of ONNX Runtime. The state that it gives is the one after a row's
padding, so the state is taken here: at each row's own end.
"""

from __future__ import annotations

import torch
from transformers.activations import ACT2FN

from triform.models.recurrent.passes import RecurrentPass
from triform.models.recurrent.recurrence import Call, Recurrence
from triform.models.spec import RecurrentState
from triform.models.traceable.picking import pick_positions

# The activations that the operator has.
_FUSED = ("silu", "swish")


def _state(call: Call) -> RecurrentState:
    """What the convolution read of the last tokens: (kernel - 1, channels)."""
    return RecurrentState("convolution", (call["weight"].shape[-1] - 1, call["hidden_states"].shape[1]))


def _emit(current: RecurrentPass, call: Call) -> torch.Tensor:
    weight, activation = call["weight"], call["activation"]
    values, width = call["hidden_states"].transpose(1, 2), weight.shape[-1] - 1
    read = torch.cat([current.next_past(), values], dim=1)
    current.present.append(pick_positions(read, current.ends(width)))
    output, _ = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::CausalConvWithState",
        # Not the state itself: its buffer may hold the new state before the operator runs.
        [values, weight.unsqueeze(1), call["bias"], read[:, :width]],
        {"channels_last": 1, "activation": "silu" if activation in _FUSED else "none"},
        dtypes=(values.dtype, values.dtype),
        shapes=(values.shape, (values.shape[0], width, values.shape[2])),
        version=1,
    )
    if activation is not None and activation not in _FUSED:
        output = ACT2FN[activation](output)
    result: torch.Tensor = output.transpose(1, 2)
    return result


CONVOLUTION = Recurrence({"hidden_states": 2}, _state, _emit)
