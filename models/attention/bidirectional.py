"""Plugs ONNX Runtime's encoder attention operator into transformers, through its AttentionInterface.

A model switched to one of the implementations registered here calls `attend_bidirectional` in place of its own
attention. While tracing, that emits one ``com.microsoft::MultiHeadAttention`` node per layer. Outside tracing it
computes the same in PyTorch, so that the prepared model can be compared with the original before it is exported.

The operator is described in docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, bidirectional_mask_function, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from triform.models.attention.layout import merge_heads
from triform.models.attention.rotary import RotaryTable, rotate

# The operator gets a padding mask as it is; any other mask becomes a bias.
WITH_PADDING_MASK = "triform_encoder"
# Every mask becomes a bias: for models that compute with their masks.
WITH_BIAS = "triform_encoder_bias"

_announced: list[RotaryTable] = []


@contextmanager
def rotating() -> Iterator[Callable[[RotaryTable], None]]:
    """Yields a function that makes the next attention rotate its queries and keys by a rotary table."""
    _announced.clear()
    try:
        yield _announced.append
    finally:
        _announced.clear()


def padding_or_bias(
    *, q_length: int, kv_length: int, mask_function: Any, attention_mask: torch.Tensor | None, **others: Any
) -> torch.Tensor | None:
    """A mask function for transformers that returns a padding mask as it is, and any other mask as a bias.

    Returns:
        bool or int (batch, keys), true where a key is a token, for a mask that hides padding only; float
        (batch, 1, queries, keys), added to the scores, for any other, such as a sliding window.
    """
    if mask_function is bidirectional_mask_function:
        return attention_mask
    return mask_bias(
        q_length=q_length, kv_length=kv_length, mask_function=mask_function, attention_mask=attention_mask, **others
    )


def mask_bias(**arguments: Any) -> torch.Tensor:
    """A mask function for transformers that returns a bias, float (batch, 1, queries, keys), added to the scores."""
    # Skipping would return None where all keys are visible, which depends on data and cannot be traced.
    mask: torch.Tensor = eager_mask(
        **{**arguments, "allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    )
    return mask


def attend_bidirectional(  # noqa: PLR0913 -- the signature is transformers'
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer over all keys.

    Args:
        module: the calling layer, unused; transformers passes it.
        query: float (batch, num_attention_heads, queries, head_dim).
        key: float (batch, num_key_value_heads, keys, head_dim).
        value: as `key`; its last axis may differ.
        attention_mask: what `padding_or_bias` returned, or a float bias the model made from it.
        scaling: multiplies the scores; 1/sqrt(head_dim) when None.
        dropout: ignored; models are exported in evaluation mode.
        position_bias: float (1 or batch, num_attention_heads, queries, keys), added to the scores (T5).
        softcap: scores become ``softcap * tanh(scores / softcap)`` when set, before anything is added.

    Returns:
        float (batch, queries, num_attention_heads, head_dim), and None for the weights.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling)
    if _announced:
        table = _announced.pop()
        query, key = _rotate(query, table), _rotate(key, table)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    padding = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
    added = [part for part in (position_bias, attention_mask if padding is None else None) if part is not None]
    summed = sum(added[1:], added[0]) if added else None
    # The operator has no softcap.
    if torch.compiler.is_exporting() and not softcap:
        return _emit(query, key, value, padding, summed, scale), None
    return _compute(query, key, value, padding, summed, scale, softcap), None


def _rotate(tensor: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """One RotaryEmbedding node; it takes the heads in the layout of the projection's output."""
    if not torch.compiler.is_exporting():
        return rotate(tensor, table)
    batch, heads, length, head_dim = tensor.shape
    rotated = torch.onnx.ops.symbolic(
        "com.microsoft::RotaryEmbedding",
        [merge_heads(tensor), torch.zeros(1, dtype=torch.int64), table.cos, table.sin],
        {"num_heads": heads, "rotary_embedding_dim": 2 * table.cos.shape[-1], "interleaved": int(table.interleaved)},
        dtype=tensor.dtype,
        shape=(batch, length, heads * head_dim),
        version=1,
    )
    return rotated.reshape(batch, length, heads, head_dim).transpose(1, 2)


def _emit(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    padding: torch.Tensor | None,
    added: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    batch, heads, length, _ = query.shape
    width = value.shape[-1]
    mask = None if padding is None else padding.to(torch.int32)
    if added is not None and added.shape[2] == 1 and length != 1:
        # The operator broadcasts over rows and heads only.
        added = added.expand(*added.shape[:2], length, added.shape[3])
    output = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        [*(merge_heads(part) for part in (query, key, value)), None, mask, added],
        {"num_heads": heads, "scale": scale},
        dtype=query.dtype,
        shape=(batch, length, heads * width),
        version=1,
    )
    return output.reshape(batch, length, heads, width)


def _compute(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    padding: torch.Tensor | None,
    added: torch.Tensor | None,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    scores = query @ key.transpose(2, 3) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if added is not None:
        scores = scores + added
    if padding is not None:
        scores = scores.masked_fill(~padding.bool()[:, None, None], torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous()


for _name, _mask in ((WITH_PADDING_MASK, padding_or_bias), (WITH_BIAS, mask_bias)):
    ALL_ATTENTION_FUNCTIONS.register(_name, attend_bidirectional)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_name, _mask)
