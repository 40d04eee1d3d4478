"""ONNX Runtime's encoder attention, plugged into transformers through its AttentionInterface.

A model switched to ``attn_implementation="triform_encoder"`` calls `attend_all` in place of its own attention. While
tracing, that emits one ``com.microsoft::MultiHeadAttention`` node per layer; outside tracing it computes the same thing
in PyTorch, so that the substitution can be compared with the original model before anything is exported.

Operator contract: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

IMPLEMENTATION = "triform_encoder"


def padding_or_bias(
    *, q_length: int, kv_length: int, mask_function: Any, attention_mask: torch.Tensor | None, **others: Any
) -> torch.Tensor | None:
    """A mask function for transformers: the padding as it is where that is all there is to hide.

    Returns:
        bool or int (batch, keys), true where a key is a token, for a mask that hides padding only; float
        (batch, 1, queries, keys) to be added to the scores for any other, such as a sliding window.
    """
    if _sees_everything(mask_function):
        return attention_mask
    # Without this argument eager_mask may return None where all keys are seen, which depends on data.
    others |= {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    bias: torch.Tensor = eager_mask(
        q_length=q_length, kv_length=kv_length, mask_function=mask_function, attention_mask=attention_mask, **others
    )
    return bias


def _sees_everything(mask_function: Any) -> bool:
    """Whether a mask lets every query see every key, tried at the positions that real masks tell apart."""
    places = torch.tensor([0, 1, 2, 7, 64, 1000, 100_000])
    queries, keys = places[:, None], places[None]
    seen = torch.as_tensor(mask_function(torch.tensor(0), torch.tensor(0), queries, keys))
    return bool(seen.all())


def attend_all(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
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
        dropout: ignored, models are exported in evaluation mode.

    Returns:
        float (batch, queries, num_attention_heads, head_dim), and None for the weights.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    compute = _emit if torch.compiler.is_exporting() else _compute
    return compute(query, key, value, attention_mask, scale), None


def _emit(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    batch, heads, length, _ = query.shape
    width = value.shape[-1]
    padding = mask.to(torch.int32) if mask is not None and mask.dim() == 2 else None
    bias = mask if mask is not None and mask.dim() == 4 else None
    output = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        [*(_merge_heads(part) for part in (query, key, value)), None, padding, bias],
        {"num_heads": heads, "scale": scale},
        dtype=query.dtype,
        shape=(batch, length, heads * width),
        version=1,
    )
    return output.reshape(batch, length, heads, width)


def _merge_heads(tensor: torch.Tensor) -> torch.Tensor:
    batch, heads, length, head_dim = tensor.shape
    return tensor.transpose(1, 2).reshape(batch, length, heads * head_dim)


def _compute(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    scores = query @ key.transpose(2, 3) * scale
    if mask is not None and mask.dim() == 2:
        scores = scores.masked_fill(~mask.bool()[:, None, None], torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ value).transpose(1, 2)


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend_all)
ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, padding_or_bias)
