"""How tensors lie for the attention operators."""

from __future__ import annotations

import torch


def merge_heads(tensor: torch.Tensor) -> torch.Tensor:
    """(batch, heads, sequence, head_dim) to (batch, sequence, heads * head_dim), as a projection leaves it."""
    batch, heads, length, head_dim = tensor.shape
    return tensor.transpose(1, 2).reshape(batch, length, heads * head_dim)
