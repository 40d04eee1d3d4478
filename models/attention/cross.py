"""Plugs the attention of encoder-decoders into transformers, through its AttentionInterface.

`attend_encoder_decoder` tells the three kinds of attention of such a model apart. The decoder's self-attention (its
mask is `CausalMask`) goes to `attend_causal`. Its cross-attention (announced by the `CrossAttentionState`) is computed
here. All other attention is the encoder's and goes to `attend_bidirectional`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from triform.models.attention.bidirectional import attend_bidirectional, padding_or_bias
from triform.models.attention.causal import FullMask, SlidingWindow, UnknownMask, attend_causal, causal_mask
from triform.models.attention.cross_state import CrossAttentionState
from triform.models.attention.layout import merge_heads
from triform.models.current_pass import CurrentPass

ENCODER_DECODER = "triform_encoder_decoder"
# Placeholder nodes, which `export/graph/cross_attention.py` replaces.
_OPERATOR = "triform::CrossAttention"
# Outputs attention to the source, and the logarithm of the sum of its weights before they are divided by that sum.
_SUMMED = "triform::SummedCrossAttention"
# Outputs the attention weights, float (batch, sequence, heads, source), for models without padding.
_WEIGHTS = "triform::CrossWeights"


@dataclass(frozen=True)
class CausalMask:
    """Takes the place of the mask tensor of a decoder's self-attention."""

    window: SlidingWindow | UnknownMask | FullMask | None


_CURRENT: CurrentPass[CrossAttentionState] = CurrentPass("attention")
cross_attending = _CURRENT.running


def encoder_decoder_mask(**arguments: Any) -> CausalMask | torch.Tensor | None:
    """A mask function for transformers: a `CausalMask` for a decoder, as `padding_or_bias` for an encoder."""
    if "allow_is_bidirectional_skip" in arguments:
        return padding_or_bias(**arguments)
    return CausalMask(causal_mask(**arguments))


def attend_encoder_decoder(  # noqa: PLR0913 -- the signature is transformers'
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: CausalMask | torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer of an encoder-decoder.

    Arguments and result are those of `attend_causal`, but for `attention_mask`, which `encoder_decoder_mask` returned.
    """
    current = _CURRENT.get()
    layer = current.take_pending()
    if layer is not None and current.collecting:
        _collect(current, query.shape[1], attention_mask)
    if current.collecting and (layer is not None or isinstance(attention_mask, CausalMask)):
        # The decoder's results are not used while the encoder is traced.
        return query.transpose(1, 2), None
    if layer is not None:
        return _attend_across(current, layer, query, scaling, softcap), None
    if isinstance(attention_mask, CausalMask):
        return attend_causal(
            module, query, key, value, attention_mask.window, scaling, softcap=softcap, s_aux=s_aux,
            position_bias=position_bias,
        )  # fmt: skip
    return attend_bidirectional(
        module, query, key, value, attention_mask, scaling, position_bias=position_bias, softcap=softcap
    )


def attend_to_source(layer: int, query: torch.Tensor, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of a decoder's layer to the source alone, which is a part of all that the layer attends to.

    Args:
        layer: its index.
        query: float (batch, heads, sequence, head_dim).
        scaling: multiplies the scores.

    Returns:
        float (batch, sequence, heads, head_dim), and the logarithm of the sum of the exponentials of its scores, float
        (batch, heads, sequence, 1).
    """
    state = _CURRENT.get()
    key, value, padding = state.keys[layer], state.values[layer], state.padding
    if not torch.compiler.is_exporting():
        scores = query @ key.transpose(2, 3) * scaling
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None, :] == 0, torch.finfo(scores.dtype).min)
        total = scores.logsumexp(-1, keepdim=True)
        return ((scores - total).exp() @ value).transpose(1, 2), total
    batch, heads, length, head_dim = query.shape
    output, total = torch.onnx.ops.symbolic_multi_out(
        _SUMMED,
        [merge_heads(query), key, value, padding],
        {"num_heads": heads, "head_dim": head_dim, "scale": scaling},
        dtypes=(query.dtype, query.dtype),
        shapes=((batch, length, heads * head_dim), (batch, length, heads)),
        version=1,
    )
    return output.reshape(batch, length, heads, head_dim), total.transpose(1, 2)[..., None]


def _collect(state: CrossAttentionState, heads: int, padding: Any) -> None:
    groups = heads // state.keys[-1].shape[1]
    if groups > 1:
        # The operator needs as many key heads as query heads; repeating them once is cheaper than at each step.
        state.keys[-1] = state.keys[-1].repeat_interleave(groups, 1)
        state.values[-1] = state.values[-1].repeat_interleave(groups, 1)
    if isinstance(padding, torch.Tensor):
        state.padding = padding


def _attend_across(
    state: CrossAttentionState, layer: int, query: torch.Tensor, scaling: float | None, softcap: float | None
) -> torch.Tensor:
    key, value = state.keys[layer], state.values[layer]
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling)
    # Some models pad heads with zeros for kernels that are not used here.
    missing = query.shape[-1] - key.shape[-1]
    query = query[..., : key.shape[-1]]
    _keep_weights(state, layer, query, scale)
    compute = _emit if torch.compiler.is_exporting() else _compute
    output = compute(query, key, value, state.padding, scale, softcap or 0.0)
    return torch.nn.functional.pad(output, (0, missing)) if missing else output


def _keep_weights(state: CrossAttentionState, layer: int, query: torch.Tensor, scale: float) -> None:
    """Append the attention weights of the layer's alignment heads to `state.weights`."""
    heads = [head for alignment_layer, head in state.alignment_heads if alignment_layer == layer]
    if not heads:
        return
    query, key = query[:, heads], state.keys[layer][:, heads]
    if not torch.compiler.is_exporting():
        state.weights.append((query @ key.transpose(2, 3) * scale).softmax(-1))
        return
    rows, _, length, head_dim = query.shape
    weights = torch.onnx.ops.symbolic(
        _WEIGHTS,
        [merge_heads(query), key],
        {"num_heads": len(heads), "head_dim": head_dim, "scale": scale},
        dtype=query.dtype,
        shape=(rows, length, len(heads), key.shape[2]),
        version=1,
    )
    state.weights.append(weights.transpose(1, 2))


def _emit(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    padding: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    batch, heads, length, head_dim = query.shape
    output = torch.onnx.ops.symbolic(
        _OPERATOR,
        [merge_heads(query), key, value, padding],
        {"num_heads": heads, "head_dim": head_dim, "scale": scale, "softcap": softcap},
        dtype=query.dtype,
        shape=(batch, length, heads * head_dim),
        version=1,
    )
    return output.reshape(batch, length, heads, head_dim)


def _compute(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    padding: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    scores = query @ key.transpose(2, 3) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None, :] == 0, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ value).transpose(1, 2)


ALL_ATTENTION_FUNCTIONS.register(ENCODER_DECODER, attend_encoder_decoder)
ALL_MASK_ATTENTION_FUNCTIONS.register(ENCODER_DECODER, encoder_decoder_mask)
