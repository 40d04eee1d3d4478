"""Adapts older decoders, whose attention does not use transformers' AttentionInterface.

Their attention modules have the same projections as BART's. The forward functions here apply the projections and call
`attend_encoder_decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import EncoderDecoderCache
from transformers.models.fsmt.modeling_fsmt import Attention as FSMTAttention
from transformers.models.trocr.modeling_trocr import TrOCRAttention

from triform.models.attention.cross import CausalMask, attend_encoder_decoder
from triform.models.patching import patched


@contextmanager
def through_interface(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, the attention modules of such models call `attend_encoder_decoder`."""
    modules = [module for module in model.modules() if type(module) in _FORWARDS]
    with patched((module, "forward", _FORWARDS[type(module)](module)) for module in modules):
        yield


def _trocr(module: Any) -> Any:
    def forward(
        hidden_states: torch.Tensor, key_value_states: torch.Tensor | None = None, **others: Any
    ) -> tuple[torch.Tensor, None]:
        # Recognized by its type: its name differs between versions of transformers.
        cache = next((item for item in others.values() if isinstance(item, EncoderDecoderCache)), None)
        # Only the decoder is TrOCR's, and its sources are images, which have no padding.
        return _attention(module, hidden_states, key_value_states, cache, CausalMask(None)), None

    return forward


def _fsmt(module: Any) -> Any:
    def forward(
        query: torch.Tensor,
        key: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        layer_state: Any = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        # FSMT's tensors are (sequence, batch, hidden_size), and its mask is true at padding.
        is_cross_attention = module.encoder_decoder_attention
        mask = None if key_padding_mask is None else (~key_padding_mask.bool()).to(torch.int64)
        is_causal = layer_state is not None and not is_cross_attention
        source = key.transpose(0, 1) if is_cross_attention else None
        output = _attention(module, query.transpose(0, 1), source, layer_state, CausalMask(None) if is_causal else mask)
        return output.transpose(0, 1), None

    return forward


def _attention(module: Any, hidden_states: torch.Tensor, source: torch.Tensor | None, cache: Any, mask: Any) -> Any:
    """Attention of one layer: to `source`, whose keys and values the cache may hold, or to itself when None."""
    query = _heads(module, module.q_proj(hidden_states))
    if source is not None and cache.is_updated.get(module.layer_idx):
        layer = cache.cross_attention_cache.layers[module.layer_idx]
        key, value = layer.keys, layer.values
    else:
        states = hidden_states if source is None else source
        key, value = _heads(module, module.k_proj(states)), _heads(module, module.v_proj(states))
        if source is not None:
            cache.cross_attention_cache.update(key, value, module.layer_idx)
    output, _ = attend_encoder_decoder(module, query, key, value, mask, module.scaling)
    return module.out_proj(output.flatten(2))


def _heads(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unflatten(-1, (module.num_heads, module.head_dim)).transpose(1, 2)


_FORWARDS = {TrOCRAttention: _trocr, FSMTAttention: _fsmt}
