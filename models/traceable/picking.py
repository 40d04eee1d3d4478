"""Picks the hidden states that logits are wanted for, in a way that traces to one operator."""

from __future__ import annotations

import torch


def pick_positions(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The hidden states at some positions of each row, as one GatherND node.

    Args:
        hidden: float (batch, sequence, hidden_size).
        positions: int64 (batch, num_logits).

    Returns:
        float (batch, num_logits, hidden_size). Only its shape and dtype are right outside tracing.
    """
    picked: torch.Tensor = torch.onnx.ops.symbolic(
        "GatherND",
        (hidden, positions[..., None]),
        {"batch_dims": 1},
        dtype=hidden.dtype,
        shape=(*positions.shape, hidden.shape[-1]),
    )
    return picked
