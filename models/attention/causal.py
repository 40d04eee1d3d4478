"""Plugs ONNX Runtime's causal attention operator into transformers, through its AttentionInterface.

A model whose ``attn_implementation`` is `CAUSAL` calls `attend_causal` in place of its own attention. While tracing,
that emits one ``com.microsoft::GroupQueryAttention`` node per layer. Outside tracing it computes the same in PyTorch,
so that the prepared model can be compared with the original before it is exported.

The operator is described in docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from triform.models.attention.layout import causal_width, merge_heads
from triform.models.attention.rotary import RotaryTable, rotate
from triform.models.current_pass import CurrentPass
from triform.models.errors import UnsupportedModelError
from triform.models.spec import LayerCache

CAUSAL = "triform"

# A position far beyond any window or chunk size in use, where a mask no longer depends on the start of the text.
_FAR = 1 << 22


@dataclass(frozen=True)
class SlidingWindow:
    """Takes the place of a mask tensor: each query attends to itself and to the `size - 1` keys before it."""

    size: int

    def __getitem__(self, _: Any) -> SlidingWindow:
        """The mask itself: a model may cut a mask to the keys that it passes on, which the operator does by itself."""
        return self


@dataclass(frozen=True)
class UnknownMask:
    """Takes the place of a mask that is neither causal nor a causal sliding window; no layer may use it.

    Attributes:
        causal_up_to: the tokens up to which the mask is causal, as the first chunk of several is; None if unknown.
    """

    causal_up_to: int | None = None

    def __getitem__(self, _: Any) -> UnknownMask:
        """The mask itself, as for `SlidingWindow`."""
        return self


@dataclass(frozen=True)
class FullMask:
    """Takes the place of a causal mask where the model takes a part of it, or hides what was not selected."""

    dtype: ClassVar[torch.dtype] = torch.float32

    def __getitem__(self, _: Any) -> FullMask:
        """The mask itself, as for `SlidingWindow`."""
        return self

    def masked_fill(self, hidden: torch.Tensor, _: float) -> FullMask:
        """The mask itself where all tokens are selected, see `all_selected`.

        Raises:
            UnsupportedModelError: it may hide some.
        """
        if hidden.dim():
            raise UnsupportedModelError("it changes the attention mask inside its layers")
        return self


@dataclass(frozen=True)
class LayerFacts:
    """The cache geometry and sliding window of one layer's attention, learned by running the model once."""

    cache: LayerCache
    window: int | None


@dataclass
class ForwardPass:
    """State that the attention layers of one forward pass share.

    Attributes:
        seqlens_k: int32 (batch,), index of each row's last key; None outside tracing.
        total_sequence_length: int32 (1,), the longest row's number of keys; None outside tracing.
        layers: outside tracing, filled by each layer in turn; while tracing, read by each layer in turn.
        traced: number of layers traced so far.
        pending: the rotary table that the current layer announced; its attention takes it.
        isolated: whether each query attends to itself only, to see what else connects tokens; outside tracing.
        key_positions: int64 (total,), of the keys, for biases by position; None outside tracing, and without biases.
        max_length: most tokens of a row, up to which masks must be causal.
    """

    seqlens_k: torch.Tensor | None = None
    total_sequence_length: torch.Tensor | None = None
    layers: list[LayerFacts] = field(default_factory=list)
    traced: int = 0
    pending: RotaryTable | None = None
    isolated: bool = False
    key_positions: torch.Tensor | None = None
    max_length: int | None = None

    def positions(self, length: int) -> torch.Tensor:
        """The positions of a chunk's `length` tokens, int64 (batch or 1, length)."""
        steps = torch.arange(length)
        if self.seqlens_k is None:
            return steps[None]
        return (self.seqlens_k - (length - 1)).to(torch.int64)[:, None] + steps

    def distances(self, length: int) -> torch.Tensor:
        """From each key to each of a chunk's `length` tokens, int64 (batch or 1, 1, length, keys)."""
        keys = torch.arange(length) if self.key_positions is None else self.key_positions
        return self.positions(length)[:, None, :, None] - keys


def traced_pass(
    past_lengths: torch.Tensor, length: int, layers: list[LayerFacts], key_positions: torch.Tensor | None = None
) -> ForwardPass:
    """The state for tracing one chunk of tokens.

    Args:
        past_lengths: int32 (batch,), tokens that each row has in its cache.
        length: tokens of the chunk.
        layers: from a pass outside tracing.
        key_positions: see `ForwardPass`.
    """
    seqlens_k = past_lengths + (length - 1)
    total = (seqlens_k.amax(0, keepdim=True) + 1).to(torch.int32)
    return ForwardPass(seqlens_k.to(torch.int32), total, layers=layers, key_positions=key_positions)


_CURRENT: CurrentPass[ForwardPass] = CurrentPass("attention")
attending = _CURRENT.running
current_pass = _CURRENT.get


def announce(table: RotaryTable) -> None:
    """Have the next attention rotate its queries and keys by `table`.

    Raises:
        LookupError: the operator does not take tables of this width.
    """
    if table.cos.shape[-1] % 8:
        raise LookupError(f"the attention operator does not rotate {2 * table.cos.shape[-1]} of a head's channels")
    current_pass().pending = table


def causal_mask(
    *_: Any, mask_function: Any, kv_length: int, config: Any, local_size: int | None = None, **__: Any
) -> SlidingWindow | UnknownMask | FullMask | None:
    """A mask function for transformers that returns the window of a causal mask instead of a tensor.

    Returns:
        None or `FullMask` for a mask without a window; also while tracing, when `LayerFacts` has the window.
        `UnknownMask` for a mask that is neither causal nor a causal sliding window: models also make masks that no
        layer uses.
    """
    # Models that select tokens take a part of the mask, or change it.
    whole = FullMask() if hasattr(config, "index_topk") or hasattr(config, "indexer_budget") else None
    if torch.compiler.is_exporting():
        return whole
    try:
        causal = _is_causal(mask_function, _FAR, local_size)
    except IndexError:
        # It looks up what each position of this text is, such as a part of an image: here all are words.
        causal = _is_causal(mask_function, kv_length - 1, local_size)
    if causal:
        return SlidingWindow(local_size) if local_size else whole
    # In chunks, of which the first is causal.
    limit = local_size if local_size and _is_causal(mask_function, local_size - 1, None) else None
    max_length = current_pass().max_length
    return whole if limit and max_length and max_length <= limit else UnknownMask(limit)


def _is_causal(mask_function: Any, last: int, window: int | None) -> bool:
    """Whether the queries at positions `last` and before it see themselves and what is before, within the window."""
    keys = torch.arange(max(0, last - 4 * (window or 1) - 8), last + (4 if last == _FAR else 1))
    for query in (last, last - 1):
        visible = torch.as_tensor(mask_function(0, 0, torch.tensor(query), keys)).expand(keys.shape)
        in_window = keys > query - window if window else torch.ones_like(visible)
        if not torch.equal(visible, (keys <= query) & in_window):
            return False
    return True


def attend_causal(  # noqa: PLR0913 -- the signature is transformers'
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: SlidingWindow | UnknownMask | FullMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of one layer over its cache.

    Args:
        module: the calling layer, unused; transformers passes it.
        query: float (batch, num_attention_heads, sequence, head_dim).
        key: float (batch, num_key_value_heads, sequence, head_dim).
        value: as `key`; its last axis may be shorter.
        attention_mask: what `causal_mask` returned for this layer.
        scaling: multiplies the scores; 1/sqrt(head_dim) when None.
        dropout: ignored; models are exported in evaluation mode.
        softcap: scores become ``softcap * tanh(scores / softcap)`` when set.
        s_aux: float (num_attention_heads,), an extra score per head that takes part in the softmax only.
        position_bias: float (1 or batch, num_attention_heads, sequence, keys), added to the scores (T5).
        sinks: float (batch, num_attention_heads, sequence, 1), as `s_aux`, but one score a query (Inkling 2).

    Returns:
        float (batch, sequence, num_attention_heads, width of `value`), and None for the weights.

    Raises:
        UnsupportedModelError: the operator cannot do this.
    """
    current = current_pass()
    if sinks is not None:
        position_bias, s_aux = _relative_to_sinks(position_bias, sinks)
    if value.shape[-1] > key.shape[-1]:
        raise UnsupportedModelError(f"its keys have head size {key.shape[-1]} but its values {value.shape[-1]}")
    if isinstance(attention_mask, UnknownMask):
        raise UnsupportedModelError(_described(attention_mask))
    if isinstance(attention_mask, FullMask):
        attention_mask = None
    if attention_mask is not None and not isinstance(attention_mask, SlidingWindow):
        raise UnsupportedModelError("it changes the attention mask inside its layers")
    table, current.pending = current.pending, None
    tracing = current.seqlens_k is not None
    if not tracing:
        window = attention_mask.size if attention_mask else None
        current.layers.append(LayerFacts(LayerCache(key.shape[1], causal_width(key.shape[3])), window))
    layer = _Layer(
        scale=1 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling),
        window=current.layers[current.traced if tracing else -1].window,
        softcap=softcap or 0.0,
        sink=s_aux,
        table=table,
        bias=position_bias,
    )
    if tracing:
        current.traced += 1
        output = _emit(current, layer, query, key, value)
    elif current.isolated:
        output = value.repeat_interleave(query.shape[1] // value.shape[1], 1).transpose(1, 2).contiguous()
    else:
        output = _compute(layer, query, key, value)
    return output, None


def _relative_to_sinks(position_bias: torch.Tensor | None, sinks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Biases and sinks that give the same weights where the sink of each query is 0.

    Raises:
        UnsupportedModelError: there are no biases, so that none can be moved.
    """
    if position_bias is None:
        raise UnsupportedModelError("its attention has a sink for each query, but no biases by position")
    return position_bias - sinks, torch.zeros(sinks.shape[1])


def _described(mask: UnknownMask) -> str:
    if mask.causal_up_to is None:
        return "its attention mask is neither causal nor a causal sliding window"
    return (
        f"its layers attend in chunks of {mask.causal_up_to} tokens, which is not supported; with a context length of "
        f"{mask.causal_up_to} there is only one chunk"
    )


@dataclass(frozen=True)
class _Layer:
    scale: float
    window: int | None
    softcap: float
    sink: torch.Tensor | None
    table: RotaryTable | None
    bias: torch.Tensor | None


def _emit(
    state: ForwardPass, layer: _Layer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """One operator node without its cache, which would make tracing slower.

    `export/graph/cache.py` adds the cache's inputs and outputs to the finished graph, in the order of the layers.
    """
    batch, heads, length, head_dim = query.shape
    # The operator takes values as wide as the keys.
    width, value_width = causal_width(head_dim), value.shape[-1]
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": key.shape[1], "scale": layer.scale}
    if layer.window is not None:
        attributes["local_window_size"] = layer.window
    if layer.softcap:
        attributes["softcap"] = layer.softcap
    if layer.table is not None:
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(layer.table.interleaved)}
    inputs = [
        merge_heads(query, width), merge_heads(key, width), merge_heads(value, width), None, None,
        state.seqlens_k, state.total_sequence_length,
        layer.table.cos if layer.table else None, layer.table.sin if layer.table else None,
    ]  # fmt: skip
    if layer.sink is not None or layer.bias is not None:
        inputs += [None, layer.bias, layer.sink]
    output = torch.onnx.ops.symbolic(
        "com.microsoft::GroupQueryAttention",
        inputs,
        attributes,
        dtype=query.dtype,
        shape=(batch, length, heads * width),
        version=1,
    ).reshape(batch, length, heads, width)
    return output if width == value_width else output[..., :value_width].contiguous()


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
    # Contiguous as from transformers' own functions: models take views of it.
    return (weights @ value).transpose(1, 2).contiguous()


ALL_ATTENTION_FUNCTIONS.register(CAUSAL, attend_causal)
ALL_MASK_ATTENTION_FUNCTIONS.register(CAUSAL, causal_mask)
