"""Pools the vectors of tokens to one vector per text, as sentence-transformers does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def sentence_embedding(
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    pooling: Sequence[str],
    dense: Sequence[torch.nn.Module],
    normalize: bool,
    prompt_lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute one vector per row.

    Args:
        states: float (batch, sequence, hidden_size).
        attention_mask: int (batch, sequence), 1 at tokens and 0 at padding on the right.
        pooling: names in `POOLINGS`; the vectors of several are concatenated.
        dense: layers applied in order.
        normalize: whether to scale the vector to length 1.
        prompt_lengths: int64 (batch,), tokens at the start of each row to leave out; none when None.

    Returns:
        float (batch, dimension).
    """
    mask = attention_mask[..., None].to(states.dtype)
    functions = POOLINGS
    if prompt_lengths is not None:
        functions = {**POOLINGS, **_AFTER_PROMPT}
        mask = mask * (torch.arange(states.shape[1])[None, :] >= prompt_lengths[:, None])[..., None].to(states.dtype)
    vector = torch.cat([functions[name](states, mask) for name in pooling], dim=-1)
    for layer in dense:
        vector = layer(vector)
    return torch.nn.functional.normalize(vector, p=2.0, dim=-1) if normalize else vector


def _cls(states: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return states[:, 0]


def _max(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    # Below any value of a model. Infinity, as in sentence-transformers, would spoil the range for quantization.
    return torch.where(mask > 0, states, torch.full_like(states, -1e9)).amax(1)


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


def _mean_sqrt(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9).sqrt()


def _weighted_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask * torch.arange(1, states.shape[1] + 1)[None, :, None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _last(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    last = (mask.sum(1, keepdim=True).to(torch.int64) - 1).clamp(min=0)
    return states.gather(1, last.expand(-1, 1, states.shape[-1]))[:, 0]


POOLINGS: dict[str, Pooling] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


def _first_counted(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    count_down = torch.arange(states.shape[1], 0, -1)[None, :, None].to(states.dtype)
    return _at(states, (mask * count_down).argmax(1))


def _last_counted(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    count = torch.arange(1, states.shape[1] + 1)[None, :, None].to(states.dtype)
    return _at(states * mask, (mask * count).argmax(1))


def _at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The vectors (batch, hidden_size) at `places`, int64 (batch, 1)."""
    return states.gather(1, places[..., None].expand(-1, 1, states.shape[-1]))[:, 0]


# For rows that begin with tokens to leave out.
_AFTER_PROMPT: dict[str, Pooling] = {"cls": _first_counted, "lasttoken": _last_counted}
