"""Adapts older encoder-decoders, whose attention does not use transformers' AttentionInterface.

Their attention modules have the same projections as BART's. The forward functions here apply the projections and call
`attend_encoder_decoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from transformers.cache_utils import EncoderDecoderCache

from triform.models.attention.cross import ENCODER_DECODER, CausalMask, attend_encoder_decoder
from triform.models.errors import UnsupportedModelError
from triform.models.patching import kind_of, patched


@contextmanager
def through_interface(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, the attention modules of such models call `attend_encoder_decoder`."""
    modules = [module for module in model.modules() if kind_of(module) in _FORWARDS]
    forwards = [(module, "forward", _FORWARDS[kind_of(module)](module)) for module in modules]
    with patched([*forwards, *_mask_settings(model, modules)]):
        yield


def _mask_settings(model: torch.nn.Module, modules: list[torch.nn.Module]) -> list[tuple[Any, str, str]]:
    """Settings that make transformers call the mask function of `ENCODER_DECODER` for models that read its masks.

    transformers itself refuses another implementation for models without the interface.
    """
    if not any(kind_of(module) in _READ_MASKS for module in modules):
        return []
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return [(config, "_attn_implementation_internal", ENCODER_DECODER) for config in configs.values()]


def _trocr(module: Any) -> Any:
    def forward(
        hidden_states: torch.Tensor, key_value_states: torch.Tensor | None = None, **others: Any
    ) -> tuple[torch.Tensor, None]:
        # Recognized by its type: its name differs between versions of transformers.
        cache = next((item for item in others.values() if isinstance(item, EncoderDecoderCache)), None)
        # Only the decoder is TrOCR's, and its sources are images, which have no padding.
        return _attention(module, hidden_states, key_value_states, cache, CausalMask(None)), None

    return forward


def _bart(module: Any) -> Any:
    def forward(
        hidden_states: torch.Tensor,
        key_value_states: torch.Tensor | None = None,
        attention_mask: Any = None,
        attn_prompt: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None, None]:
        if attn_prompt is not None:
            raise UnsupportedModelError("its attention has prompts, keys and values that were learned")
        cache = next((item for item in others.values() if isinstance(item, EncoderDecoderCache)), None)
        # A mask for a single token may be left out.
        is_causal = module.is_decoder and key_value_states is None
        mask = CausalMask(None) if is_causal else attention_mask
        # Some of them also return the cache, which nobody reads.
        return _attention(module, hidden_states, key_value_states, cache, mask), None, None

    return forward


def _pair(forward_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Of modules that return two values and not three."""

    def pair_of(module: Any) -> Any:
        forward = forward_of(module)
        return lambda *arguments, **others: forward(*arguments, **others)[:2]

    return pair_of


def _big_bird(module: Any) -> Any:
    def forward(hidden_states: torch.Tensor, attention_mask: Any = None, **_: Any) -> tuple[torch.Tensor, None]:
        query, key, value = (
            projection(hidden_states).unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2)
            for projection in (module.query, module.key, module.value)
        )
        return attend_encoder_decoder(module, query, key, value, attention_mask)[0].flatten(2), None

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


def _speecht5(module: Any) -> Any:
    def forward(
        hidden_states: torch.Tensor,
        key_value_states: torch.Tensor | None = None,
        attention_mask: Any = None,
        position_bias: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        cache = next((item for item in others.values() if isinstance(item, EncoderDecoderCache)), None)
        mask = CausalMask(None) if module.is_decoder and key_value_states is None else attention_mask
        return _attention(module, hidden_states, key_value_states, cache, mask, position_bias), None

    return forward


def _prophetnet(module: Any) -> Any:
    like_bart = SimpleNamespace(
        q_proj=module.query_proj, k_proj=module.key_proj, v_proj=module.value_proj, out_proj=module.out_proj,
        num_heads=module.num_attn_heads, head_dim=module.head_dim, scaling=module.head_dim**-0.5,
        layer_idx=module.layer_idx,
    )  # fmt: skip

    def forward(
        hidden_states: torch.Tensor,
        key_value_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        cache = next((item for item in others.values() if isinstance(item, EncoderDecoderCache)), None)
        # Its mask is 0 at tokens and very low at padding, once for each head.
        mask = None if attention_mask is None else (attention_mask[:, 0, 0] == 0).to(torch.int64)
        return _attention(like_bart, hidden_states, key_value_states, cache, mask), None

    return forward


def _attention(
    module: Any,
    hidden_states: torch.Tensor,
    source: torch.Tensor | None,
    cache: Any,
    mask: Any,
    distances: torch.Tensor | None = None,
) -> Any:
    """Attention of one layer.

    Args:
        module: with projections as BART's.
        hidden_states: float (batch, sequence, hidden_size).
        source: what is attended to, whose keys and values the cache may hold; the layer's own input when None.
        cache: of the decoder; None in an encoder.
        mask: as for `attend_encoder_decoder`.
        distances: float (sequence, sequence, head_dim), added to the keys as each query sees them.
    """
    query = _heads(module, module.q_proj(hidden_states))
    if source is not None and cache.is_updated.get(module.layer_idx):
        layer = cache.cross_attention_cache.layers[module.layer_idx]
        key, value = layer.keys, layer.values
    else:
        states = hidden_states if source is None else source
        key, value = _heads(module, module.k_proj(states)), _heads(module, module.v_proj(states))
        if source is not None:
            cache.cross_attention_cache.update(key, value, module.layer_idx)
    bias = None if distances is None else torch.einsum("bhqd,qkd->bhqk", query * module.scaling, distances)
    output, _ = attend_encoder_decoder(module, query, key, value, mask, module.scaling, position_bias=bias)
    return module.out_proj(output.flatten(2))


def _heads(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unflatten(-1, (module.num_heads, module.head_dim)).transpose(1, 2)


_FORWARDS: dict[str, Callable[[Any], Any]] = {
    "modeling_trocr.TrOCRAttention": _trocr,
    "modeling_fsmt.Attention": _fsmt,
    "modeling_mvp.MvpAttention": _pair(_bart),
    "modeling_led.LEDDecoderAttention": _bart,
    "modeling_bigbird_pegasus.BigBirdPegasusSelfAttention": _big_bird,
    "modeling_speecht5.SpeechT5Attention": _speecht5,
    "modeling_prophetnet.ProphetNetAttention": _prophetnet,
}
_READ_MASKS = (
    "modeling_mvp.MvpAttention",
    "modeling_led.LEDDecoderAttention",
    "modeling_bigbird_pegasus.BigBirdPegasusSelfAttention",
    "modeling_speecht5.SpeechT5Attention",
)
