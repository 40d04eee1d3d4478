"""The attention of encoder-decoders, plugged into transformers through its AttentionInterface.

Three kinds of attention meet in one model, told apart at each call: a decoder's over its own tokens (its mask is
`Causal`) goes to `attention.attend`; its attention over what the encoder gives (announced by the `Exchange`) is
computed here; everything else is an encoder's, and goes to `bidirectional.attend_all`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from triform.models.attention import bidirectional
from triform.models.attention import causal as attention
from triform.models.attention.causal import SlidingWindow
from triform.models.attention.exchange import Exchange
from triform.models.attention.layout import merge_heads

IMPLEMENTATION = "triform_encoder_decoder"
# Stands in a traced graph for the operators that `export/graph/cross_attention.py` puts there.
OPERATOR = "triform::CrossAttention"
# Gives the weights that one would compute, float (batch, sequence, heads, source); of models without padding.
WEIGHTS = "triform::CrossWeights"


@dataclass(frozen=True)
class Causal:
    """Stands in for the mask of a decoder's self-attention."""

    window: SlidingWindow | None


_current: Exchange | None = None


@contextmanager
def exchanging(exchange: Exchange) -> Iterator[Exchange]:
    """Make `exchange` the one that attention layers ask and fill while the block runs."""
    global _current
    previous, _current = _current, exchange
    try:
        yield exchange
    finally:
        _current = previous


def describe_mask(**arguments: Any) -> Causal | torch.Tensor | None:
    """A mask function for transformers: words for a decoder's masks, what `bidirectional` makes of the others."""
    if "allow_is_bidirectional_skip" in arguments:
        return bidirectional.padding_or_bias(**arguments)
    return Causal(attention.describe_mask(**arguments))


def attend(  # noqa: PLR0913 -- the signature is transformers'
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Causal | torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer of an encoder-decoder; arguments and result as `attention.attend`'s.

    Args:
        module: see there.
        query: see there.
        key: see there.
        value: see there.
        attention_mask: what `describe_mask` returned.
        scaling: see there.
        dropout: see there.
        position_bias: float (1 or batch, num_attention_heads, queries, keys), added to the scores (T5).
        softcap: see there.
    """
    if _current is None:
        raise RuntimeError("attention called outside `exchanging`")
    layer = _current.taken()
    if layer is not None and _current.collecting:
        _collect(_current, query.shape[1], attention_mask)
    if _current.collecting and (layer is not None or isinstance(attention_mask, Causal)):
        # What the decoder computes while the encoder is traced goes nowhere.
        return query.transpose(1, 2), None
    if layer is not None:
        return _attend_across(_current, layer, query, scaling, softcap), None
    if isinstance(attention_mask, Causal):
        return attention.attend(
            module, query, key, value, attention_mask.window, scaling, softcap=softcap, position_bias=position_bias
        )
    return bidirectional.attend_all(
        module, query, key, value, attention_mask, scaling, position_bias=position_bias, softcap=softcap
    )


def _collect(exchange: Exchange, heads: int, padding: Any) -> None:
    groups = heads // exchange.keys[-1].shape[1]
    if groups > 1:
        # The operator wants as many heads of keys as of queries; repeating them once is cheaper than at each step.
        exchange.keys[-1] = exchange.keys[-1].repeat_interleave(groups, 1)
        exchange.values[-1] = exchange.values[-1].repeat_interleave(groups, 1)
    if isinstance(padding, torch.Tensor):
        exchange.padding = padding


def _attend_across(
    exchange: Exchange, layer: int, query: torch.Tensor, scaling: float | None, softcap: float | None
) -> torch.Tensor:
    key, value = exchange.keys[layer], exchange.values[layer]
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling)
    # Some models fill up heads with zeros, for kernels that we do not use.
    filled = query.shape[-1] - key.shape[-1]
    query = query[..., : key.shape[-1]]
    _watch(exchange, layer, query, scale)
    compute = _emit if torch.compiler.is_exporting() else _compute
    output = compute(query, key, value, exchange.padding, scale, softcap or 0.0)
    return torch.nn.functional.pad(output, (0, filled)) if filled else output


def _watch(exchange: Exchange, layer: int, query: torch.Tensor, scale: float) -> None:
    """Leave the weights of the heads that are watched in the exchange."""
    heads = [head for one, head in exchange.watched if one == layer]
    if not heads:
        return
    query, key = query[:, heads], exchange.keys[layer][:, heads]
    if not torch.compiler.is_exporting():
        exchange.weights.append((query @ key.transpose(2, 3) * scale).softmax(-1))
        return
    rows, _, length, head_dim = query.shape
    weights = torch.onnx.ops.symbolic(
        WEIGHTS,
        [merge_heads(query), key],
        {"num_heads": len(heads), "head_dim": head_dim, "scale": scale},
        dtype=query.dtype,
        shape=(rows, length, len(heads), key.shape[2]),
        version=1,
    )
    exchange.weights.append(weights.transpose(1, 2))


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
        OPERATOR,
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


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, describe_mask)
