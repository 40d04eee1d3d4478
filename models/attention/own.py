"""Decoders of the first years, whose attention does not go through transformers' AttentionInterface.

Their modules have the projections of BART's; these forwards use them, and leave the rest to `cross_attention.attend`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import EncoderDecoderCache
from transformers.models.fsmt.modeling_fsmt import Attention as FSMTAttention
from transformers.models.trocr.modeling_trocr import TrOCRAttention

from triform.models.attention.cross import Causal, attend


@contextmanager
def through_interface(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, such modules of `model` compute their attention by `cross_attention.attend`."""
    changed = []
    for module in model.modules():
        make = _FORWARDS.get(type(module))
        if make is not None:
            module.forward = make(module)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _trocr(module: Any) -> Any:
    def forward(
        hidden_states: torch.Tensor, key_value_states: torch.Tensor | None = None, **others: Any
    ) -> tuple[torch.Tensor, None]:
        # Known by its type: transformers has had two names for it.
        cache = next((item for item in others.values() if isinstance(item, EncoderDecoderCache)), None)
        # A decoder only; its encoder is another model's, whose pictures have no padding.
        return _attention(module, hidden_states, key_value_states, cache, Causal(None)), None

    return forward


def _fsmt(module: Any) -> Any:
    def forward(
        query: torch.Tensor,
        key: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        layer_state: Any = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        # Here the sequence comes first and the batch second, and padding is what is true.
        crossing = module.encoder_decoder_attention
        mask = None if key_padding_mask is None else (~key_padding_mask.bool()).to(torch.int64)
        of_decoder = layer_state is not None and not crossing
        source = key.transpose(0, 1) if crossing else None
        output = _attention(module, query.transpose(0, 1), source, layer_state, Causal(None) if of_decoder else mask)
        return output.transpose(0, 1), None

    return forward


def _attention(module: Any, hidden_states: torch.Tensor, source: torch.Tensor | None, cache: Any, mask: Any) -> Any:
    """Attention of one layer: over `source` where there is one, which the cache may hold already."""
    query = _heads(module, module.q_proj(hidden_states))
    if source is not None and cache.is_updated.get(module.layer_idx):
        layer = cache.cross_attention_cache.layers[module.layer_idx]
        key, value = layer.keys, layer.values
    else:
        states = hidden_states if source is None else source
        key, value = _heads(module, module.k_proj(states)), _heads(module, module.v_proj(states))
        if source is not None:
            cache.cross_attention_cache.update(key, value, module.layer_idx)
    output, _ = attend(module, query, key, value, mask, module.scaling)
    return module.out_proj(output.flatten(2))


def _heads(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unflatten(-1, (module.num_heads, module.head_dim)).transpose(1, 2)


_FORWARDS = {TrOCRAttention: _trocr, FSMTAttention: _fsmt}
