"""ONNX Runtime's attention operator, plugged into transformers through its AttentionInterface.

A model loaded or switched to ``attn_implementation="triform"`` calls `attend` in place of its own attention. While
tracing, that emits one ``com.microsoft::GroupQueryAttention`` node per layer; outside tracing it computes the same
thing in PyTorch, so that the substitution can be compared with the original model before anything is exported.

Operator contract: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from triform.models.attention.layout import merge_heads
from triform.models.attention.rotary import RotaryTable, rotate
from triform.models.errors import UnsupportedModelError
from triform.models.spec import LayerCache

IMPLEMENTATION = "triform"

# Far beyond any window or chunk size in use, so that a mask evaluated here shows its steady state.
_FAR = 1 << 22


@dataclass(frozen=True)
class SlidingWindow:
    """Stands in for a mask tensor: each query sees itself and the `size - 1` keys before it."""

    size: int


@dataclass(frozen=True)
class LayerFacts:
    """What one layer's attention is like, found by running the model once."""

    cache: LayerCache
    window: int | None


@dataclass
class Step:
    """What the attention layers of one forward pass share, and what they leave behind.

    Attributes:
        seqlens_k: int32 (batch,), index of each row's last key; None outside tracing.
        total_sequence_length: int32 (1,), the longest row's number of keys; None outside tracing.
        layers: what was found of the layers met so far, outside tracing; while tracing, what is to be used.
        traced: layers met while tracing.
        pending: the rotary table the current layer announced, consumed by its attention.
    """

    seqlens_k: torch.Tensor | None = None
    total_sequence_length: torch.Tensor | None = None
    layers: list[LayerFacts] = field(default_factory=list)
    traced: int = 0
    pending: RotaryTable | None = None


_current: Step | None = None


@contextmanager
def attending(step: Step) -> Iterator[Step]:
    """Make `step` the one that attention layers read and write while the block runs."""
    global _current
    previous, _current = _current, step
    try:
        yield step
    finally:
        _current = previous


def announce(table: RotaryTable) -> None:
    """Tell the layer's coming attention to rotate queries and keys by `table`."""
    if _current is None:
        raise RuntimeError("rotary embedding applied outside `attending`")
    _current.pending = table


def describe_mask(*_: Any, mask_function: Any, local_size: int | None = None, **__: Any) -> SlidingWindow | None:
    """A mask function for transformers that returns the mask's shape in words instead of a tensor.

    While tracing nothing is evaluated: positions are symbols then, and the layers are known already.

    Raises:
        UnsupportedModelError: the mask is neither causal nor a causal sliding window.
    """
    if torch.compiler.is_exporting():
        return None
    keys = torch.arange(_FAR - 4 * (local_size or 1) - 8, _FAR + 4)
    for query in (_FAR, _FAR - 1):
        seen = torch.as_tensor(mask_function(0, 0, torch.tensor(query), keys)).expand(keys.shape)
        nearest = keys > query - local_size if local_size else torch.ones_like(seen)
        if not torch.equal(seen, (keys <= query) & nearest):
            raise UnsupportedModelError("its attention mask is neither causal nor a causal sliding window")
    return SlidingWindow(local_size) if local_size else None


def attend(  # noqa: PLR0913 -- the signature is transformers'
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: SlidingWindow | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of one layer over its cache.

    Args:
        module: the calling layer, unused; transformers passes it.
        query: float (batch, num_attention_heads, sequence, head_dim).
        key: float (batch, num_key_value_heads, sequence, head_dim).
        value: as `key`.
        attention_mask: what `describe_mask` returned for this layer.
        scaling: multiplies the scores; 1/sqrt(head_dim) when None.
        dropout: ignored, models are exported in evaluation mode.
        softcap: scores become ``softcap * tanh(scores / softcap)`` when set.
        s_aux: float (num_attention_heads,), an extra score per head that takes part in the softmax only.
        position_bias: float (1 or batch, num_attention_heads, sequence, keys), added to the scores (T5).

    Returns:
        float (batch, sequence, num_attention_heads, head_dim), and None for the weights.
    """
    if _current is None:
        raise RuntimeError("attention called outside `attending`")
    if value.shape[-1] != key.shape[-1]:
        raise UnsupportedModelError(f"its keys have head size {key.shape[-1]} but its values {value.shape[-1]}")
    if attention_mask is not None and not isinstance(attention_mask, SlidingWindow):
        raise UnsupportedModelError("it changes the attention mask inside its layers")
    table, _current.pending = _current.pending, None
    tracing = _current.seqlens_k is not None
    if not tracing:
        window = attention_mask.size if attention_mask else None
        _current.layers.append(LayerFacts(LayerCache(key.shape[1], key.shape[3]), window))
    layer = _Layer(
        scale=1 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling),
        window=_current.layers[_current.traced if tracing else -1].window,
        softcap=softcap or 0.0,
        sink=s_aux,
        table=table,
        bias=position_bias,
    )
    if tracing:
        _current.traced += 1
        return _emit(_current, layer, query, key, value), None
    return _compute(layer, query, key, value), None


@dataclass(frozen=True)
class _Layer:
    scale: float
    window: int | None
    softcap: float
    sink: torch.Tensor | None
    table: RotaryTable | None
    bias: torch.Tensor | None


def _emit(step: Step, layer: _Layer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One operator node without its cache: tracing 2 more inputs and outputs a layer would only take time.

    `export/graph/cache.py` adds them to the finished graph, in the order of the layers.
    """
    batch, heads, length, head_dim = query.shape
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": key.shape[1], "scale": layer.scale}
    if layer.window is not None:
        attributes["local_window_size"] = layer.window
    if layer.softcap:
        attributes["softcap"] = layer.softcap
    if layer.table is not None:
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(layer.table.interleaved)}
    inputs = [
        merge_heads(query), merge_heads(key), merge_heads(value), None, None,
        step.seqlens_k, step.total_sequence_length,
        layer.table.cos if layer.table else None, layer.table.sin if layer.table else None,
    ]  # fmt: skip
    if layer.sink is not None or layer.bias is not None:
        inputs += [None, layer.bias, layer.sink]
    output = torch.onnx.ops.symbolic(
        "com.microsoft::GroupQueryAttention",
        inputs,
        attributes,
        dtype=query.dtype,
        shape=(batch, length, heads * head_dim),
        version=1,
    )
    return output.reshape(batch, length, heads, head_dim)


def _compute(layer: _Layer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    length = query.shape[2]
    if layer.table is not None:
        query, key = rotate(query, layer.table), rotate(key, layer.table)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * layer.scale
    if layer.softcap:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    if layer.bias is not None:
        scores = scores + layer.bias
    hidden = distance < 0 if layer.window is None else (distance < 0) | (distance >= layer.window)
    scores = scores.masked_fill(hidden, float("-inf"))
    if layer.sink is not None:
        sink = layer.sink.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(-1)[..., :length]
    return (weights @ value).transpose(1, 2)


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, describe_mask)
