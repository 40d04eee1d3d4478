"""Holds the keys and values of every cross-attention: outputs of the encoder graph, inputs of the decoder graph.

transformers computes them in a decoder's layers and keeps them in an EncoderDecoderCache. The caches here collect them
while the encoder graph is traced, and return them while the decoder graph is traced. Both also note that the next call
of the attention function is a cross-attention, because the call's arguments do not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache


@dataclass
class CrossAttentionState:
    """State that the cross-attentions of one forward pass share.

    Attributes:
        keys: float (batch, num_attention_heads, source, head_dim) of each layer.
        values: as `keys`.
        padding: int (batch, source), 1 at what may be attended to; None without padding.
        collecting: whether layers fill the lists (encoder graph) or read them (decoder graph).
        pending: the layer whose cross-attention is called next; None if the next attention is another.
        alignment_heads: (layer, head) of each cross-attention whose weights the decoder graph outputs.
        weights: float (batch, heads, sequence, source) of each layer with alignment heads, in order.
    """

    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    padding: torch.Tensor | None = None
    collecting: bool = True
    pending: int | None = None
    alignment_heads: Sequence[tuple[int, int]] = ()
    weights: list[torch.Tensor] = field(default_factory=list)

    def cache(self) -> EncoderDecoderCache:
        """A cache for the model: without tokens, and with the keys and values of this state."""
        cache = EncoderDecoderCache(_SelfAttentionCache(), _CrossAttentionCache(self))
        cache.is_updated = {layer: not self.collecting for layer in range(len(self.keys))}
        return cache

    def take_pending(self) -> int | None:
        """Return `pending` and clear it."""
        layer, self.pending = self.pending, None
        return layer


class _SelfAttentionCache(Cache):
    """Returns new keys and values alone: the attention operator keeps those of earlier tokens."""

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
    def __init__(self, state: CrossAttentionState) -> None:
        super().__init__()
        self._state = state
        self.layers = [_CrossLayer(state, index) for index in range(len(state.keys))]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        self._state.keys.append(key_states)
        self._state.values.append(value_states)
        self._state.pending = layer_idx
        return key_states, value_states


@dataclass(frozen=True)
class _CrossLayer:
    """One layer of the cache, with the attributes that transformers reads."""

    state: CrossAttentionState
    index: int

    @property
    def keys(self) -> torch.Tensor:
        self.state.pending = self.index
        return self.state.keys[self.index]

    @property
    def values(self) -> torch.Tensor:
        return self.state.values[self.index]
