"""How tensors lie for the attention operators."""

from __future__ import annotations

import torch

# Heads whose width is a multiple of this are taken by the attention operator of every kind of processor.
_WIDTH_MULTIPLE = 16
# The causal operator takes no others.
_CAUSAL_MULTIPLE = 8


def causal_width(head_dim: int) -> int:
    """How wide the causal operator gets heads, of which it takes only some widths."""
    return head_dim + -head_dim % _CAUSAL_MULTIPLE


def merge_heads(tensor: torch.Tensor, width: int | None = None) -> torch.Tensor:
    """(batch, heads, sequence, head_dim) to (batch, sequence, heads * width), as a projection leaves it.

    Args:
        tensor: float.
        width: of a head, with zeros behind its channels; as it is when None. Zeros in queries and keys add nothing to
            scores, and zeros in values add zeros to the output.
    """
    batch, heads, length, head_dim = tensor.shape
    width = head_dim if width is None else width
    merged = tensor.transpose(1, 2)
    # After the transpose, which then cancels the one that split the heads.
    merged = torch.nn.functional.pad(merged, (0, width - head_dim)) if width > head_dim else merged
    return merged.reshape(batch, length, heads * width)


def with_channel(heads: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
    """Heads with one more channel, and zeros up to a width that the attention operator takes.

    Args:
        heads: float (batch, heads, sequence, head_dim).
        channel: float (batch, heads, sequence, 1).
    """
    longer = torch.cat([heads, channel], -1)
    return torch.nn.functional.pad(longer, (0, -longer.shape[-1] % _WIDTH_MULTIPLE))
