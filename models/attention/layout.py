"""How tensors lie for the attention operators."""

from __future__ import annotations

import torch

# Heads whose width is a multiple of this are taken by the attention operator of every kind of processor.
_WIDTH_MULTIPLE = 16


def merge_heads(tensor: torch.Tensor) -> torch.Tensor:
    """(batch, heads, sequence, head_dim) to (batch, sequence, heads * head_dim), as a projection leaves it."""
    batch, heads, length, head_dim = tensor.shape
    return tensor.transpose(1, 2).reshape(batch, length, heads * head_dim)


def with_channel(heads: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
    """Heads with one more channel, and zeros up to a width that the attention operator takes.

    Args:
        heads: float (batch, heads, sequence, head_dim).
        channel: float (batch, heads, sequence, 1).
    """
    longer = torch.cat([heads, channel], -1)
    return torch.nn.functional.pad(longer, (0, -longer.shape[-1] % _WIDTH_MULTIPLE))
