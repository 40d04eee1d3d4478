"""What passes between an encoder graph and its decoder graph: the keys and values of every cross-attention.

transformers computes them in a decoder's layers and keeps them in an EncoderDecoderCache. Here the encoder graph
collects what the layers put into that cache, and the decoder graph's cache gives it back; both note that the coming
attention call is a cross-attention, since nothing else in that call says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache


@dataclass
class Exchange:
    """The cross-attentions of one forward pass, by layer.

    Attributes:
        keys: float (batch, num_attention_heads, source, head_dim) of each layer.
        values: as `keys`.
        padding: int (batch, source), 1 at what may be seen; None where everything may.
        collecting: whether layers fill the lists, in an encoder graph, or read them, in a decoder graph.
        pending: the layer whose cross-attention comes next, if one does.
        watched: (layer, head) of each cross-attention whose weights are wanted.
        weights: float (batch, heads, sequence, source) of each layer that has such heads, in turn.
    """

    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    padding: torch.Tensor | None = None
    collecting: bool = True
    pending: int | None = None
    watched: Sequence[tuple[int, int]] = ()
    weights: list[torch.Tensor] = field(default_factory=list)

    def cache(self) -> EncoderDecoderCache:
        """A cache to hand to the model: it holds no token yet, and this exchange's cross-attentions."""
        cache = EncoderDecoderCache(_SelfAttentionCache(), _CrossAttentionCache(self))
        cache.is_updated = {layer: not self.collecting for layer in range(len(self.keys))}
        return cache

    def taken(self) -> int | None:
        """The layer whose cross-attention this is, once for each time one was noted."""
        layer, self.pending = self.pending, None
        return layer


class _SelfAttentionCache(Cache):
    """Gives back what it is given: the attention operator keeps the keys and values that came before."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        return key_states, value_states

    def get_seq_length(self, *_: Any) -> int:
        return 0

    def get_query_offset(self, *_: Any) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, *_: Any) -> tuple[int, int]:
        return query_length, 0

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_sliding(self) -> list[bool]:
        return [False]

    def __len__(self) -> int:
        return 1


class _CrossAttentionCache(_SelfAttentionCache):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self.layers = [_Layer(exchange, index) for index in range(len(exchange.keys))]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        self._exchange.keys.append(key_states)
        self._exchange.values.append(value_states)
        self._exchange.pending = layer_idx
        return key_states, value_states


@dataclass(frozen=True)
class _Layer:
    """One layer, by the names transformers reads it by."""

    exchange: Exchange
    index: int

    @property
    def keys(self) -> torch.Tensor:
        self.exchange.pending = self.index
        return self.exchange.keys[self.index]

    @property
    def values(self) -> torch.Tensor:
        return self.exchange.values[self.index]
