"""Decoders whose layers attend to the source and to the answer at once, with one sum over both (T5Gemma 2).

The answer's keys are in the decoder's cache, and the source's are given. Attention to the source comes first. For
attention to the answer, all that the source has is one sink (see `attend_causal`), and what the weights of the answer's
keys leave of 1 is the source's: a channel of ones in the values counts them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.attention.causal import SlidingWindow
from triform.models.attention.cross import CausalMask, attend_encoder_decoder, attend_to_source
from triform.models.attention.layout import with_channel
from triform.models.encoder_decoder.positions import Positions
from triform.models.patching import kind_of, patched

_DECODER = "modeling_t5gemma2.T5Gemma2Decoder"
_ATTENTION = "modeling_t5gemma2.T5Gemma2MergedAttention"
_EMBEDDING = "modeling_t5gemma2.T5Gemma2TextScaledWordEmbedding"


def merges_sources(model: torch.nn.Module) -> bool:
    """Whether the decoder of a model is of this kind."""
    return any(kind_of(module) == _ATTENTION for module in model.modules())


@contextmanager
def merged_attention(model: torch.nn.Module, positions: Positions) -> Iterator[None]:
    """While the block runs, such attention is replaced; other models stay as they are.

    Args:
        model: an encoder-decoder, restored on exit.
        positions: the caller changes it before each forward pass.
    """
    with patched(_replacements(model, positions)):
        yield


def _replacements(model: torch.nn.Module, positions: Positions) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    for module in model.modules():
        kind = kind_of(module)
        if kind == _DECODER:
            yield module, "forward", _with_padding_for_mask(module)
        if kind == _ATTENTION:
            yield module, "forward", _attention(module, positions)
        if kind == _EMBEDDING:
            yield module, "forward", _embedding(module)


def _with_padding_for_mask(decoder: Any) -> Callable[..., Any]:
    """A forward whose layers get, in place of a mask of the answer and the source, which tokens the source has."""
    forward = decoder.forward

    def with_padding(
        *, encoder_attention_mask: torch.Tensor | None = None, attention_mask: Any = None, **named: Any
    ) -> Any:
        batch = named["encoder_hidden_states"].shape[0]
        nothing = torch.zeros(batch, 0, dtype=torch.int64)
        source = nothing if encoder_attention_mask is None else encoder_attention_mask
        answer = dict.fromkeys(("full_attention", "sliding_attention"), nothing)
        return forward(attention_mask=answer, encoder_attention_mask={"full_attention": source}, **named)

    return with_padding


def _embedding(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Looks up one token in a table of its own, without a change in place."""

    def forward(input_ids: torch.Tensor) -> torch.Tensor:
        embedded = torch.nn.functional.embedding(input_ids, module.weight) * module.embed_scale
        return torch.where((input_ids == module.eoi_token_index)[..., None], module.eoi_embedding, embedded)

    return forward


def _attention(module: Any, positions: Positions) -> Callable[..., Any]:
    window = SlidingWindow(module.sliding_window) if module.sliding_window else None
    file = sys.modules[type(module).__module__]

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        merged_attention_mask: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        cache: Any,
        **_: Any,
    ) -> tuple[torch.Tensor, None, None]:
        query = module.q_norm(_heads(module, module.q_proj(hidden_states)))
        key, value = _keys_and_values(module, hidden_states)
        query, key = file.apply_rotary_pos_emb(query, key, *position_embeddings)
        if not cache.is_updated.get(module.layer_idx):
            source = _keys_and_values(module, encoder_hidden_states)
            cache.cross_attention_cache.update(*source, module.layer_idx)
            padding = merged_attention_mask if merged_attention_mask.shape[1] else None
            output = attend_encoder_decoder(module, query, key, value, padding, module.scaling)[0]
        else:
            output = _attend(query, key, value)
        return module.o_proj(output.flatten(2)), None, None

    def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        source, total = attend_to_source(module.layer_idx, query, module.scaling)
        nothing, one = torch.zeros_like(key[..., :1]), torch.ones_like(value[..., :1])
        attended = attend_encoder_decoder(
            module, with_channel(query, torch.zeros_like(query[..., :1])), with_channel(key, nothing),
            with_channel(value, one), CausalMask(window), module.scaling, s_aux=torch.zeros(query.shape[1]),
            position_bias=(-total).expand(-1, -1, -1, positions.keys.shape[0]),
        )[0]  # fmt: skip
        answer, weight = attended[..., : module.head_dim], attended[..., module.head_dim : module.head_dim + 1]
        return answer + (1 - weight) * source

    return forward


def _keys_and_values(module: Any, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return module.k_norm(_heads(module, module.k_proj(states))), _heads(module, module.v_proj(states))


def _heads(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unflatten(-1, (-1, module.head_dim)).transpose(1, 2)
