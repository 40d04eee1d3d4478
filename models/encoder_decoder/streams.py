"""Decoders that predict several tokens at once (ProphetNet, Yan et al. 2020): what of them writes an answer.

Besides the stream of the answer's own tokens, such a decoder has a stream for the next token, one for the token after
it, and so on. Each attends to the tokens of the answer, and at each place to itself. Only the first of them says what
comes next, so the graph has these two streams. The cache holds the answer's own keys and values, as every decoder's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import embedding
from transformers import PretrainedConfig

from triform.models.attention.cross import CausalMask, attend_encoder_decoder
from triform.models.attention.layout import with_channel
from triform.models.encoder_decoder.positions import Positions
from triform.models.patching import kind_of, patched

_DECODER = "modeling_prophetnet.ProphetNetDecoder"
_ATTENTION = "modeling_prophetnet.ProphetNetNgramSelfAttention"
# The score of a sink that takes no part: far below all scores, and within float16.
_NO_SINK = -3e4


def predicts_streams(model: torch.nn.Module) -> bool:
    """Whether the decoder of a model is of this kind."""
    return any(kind_of(module) == _DECODER for module in model.modules())


def unreached_positions(config: PretrainedConfig) -> int:
    """How many of a decoder's positions no token of an answer has.

    The first position is padding's, and the stream that predicts is one ahead of the last token.
    """
    return 2 if hasattr(config, "ngram") else 0


@contextmanager
def first_stream(model: Any, positions: Positions, max_length: int) -> Iterator[None]:
    """While the block runs, such a decoder has two streams; other models stay as they are.

    Args:
        model: an encoder-decoder, restored on exit.
        positions: the caller changes it before each forward pass.
        max_length: most tokens of an answer.
    """
    decoders = [module for module in model.modules() if kind_of(module) == _DECODER]
    configs = {id(config): config for decoder in decoders for config in (model.config, decoder.config)}
    counts = [(config, "ngram", 1) for config in configs.values()]
    with patched([*counts, *(item for decoder in decoders for item in _replacements(decoder, positions, max_length))]):
        yield


def _replacements(decoder: Any, positions: Positions, max_length: int) -> Iterator[tuple[Any, str, Any]]:
    yield decoder, "ngram", 1
    yield decoder, "compute_buffered_relative_buckets", lambda *_: (None, None)
    yield decoder, "prepare_attention_mask", lambda *_: None
    yield decoder, "prepare_predict_attention_mask", lambda *_: None
    yield decoder.position_embeddings, "forward", _embedded(decoder.position_embeddings, positions)
    buckets = sys.modules[type(decoder).__module__].compute_relative_buckets(
        decoder.num_buckets, decoder.relative_max_distance, -torch.arange(max_length + 1)
    )
    for module in decoder.modules():
        if kind_of(module) == _ATTENTION:
            yield module, "forward", _two_streams(module, positions, buckets.to(torch.int64))


def _embedded(module: Any, positions: Positions) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def forward(*_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        places = positions.queries + (module.padding_idx + 1)
        return embedding(places, module.weight), places

    return forward


def _two_streams(module: Any, positions: Positions, buckets: torch.Tensor) -> Callable[..., Any]:
    """Attention of the answer's own tokens to themselves, and of the stream that predicts to them and to itself.

    Both are one operator, in which two query heads share a key head. What the second attends to of itself is no key of
    the cache, so its score is taken as that of a sink (see `attend_causal`), and its weight is what the weights of all
    keys leave of 1: a channel of ones in the values counts those.

    Args:
        module: the layer's.
        positions: of the tokens.
        buckets: int64 (distances,), which bias is for each distance of two tokens.
    """
    sinks = torch.tensor([_NO_SINK, 0.0]).repeat(module.num_attn_heads)

    def forward(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None, None]:
        length = positions.queries.shape[1]
        own, ahead = hidden_states[:, :length], hidden_states[:, length:]
        distances = (positions.queries[:, :, None] - positions.keys)[:, None]
        key, value = _heads(module, module.key_proj(own)), _heads(module, module.value_proj(own))
        key_ahead, value_ahead = _heads(module, module.key_proj(ahead)), _heads(module, module.value_proj(ahead))
        query, query_ahead = _heads(module, module.query_proj(own)), _heads(module, module.query_proj(ahead))
        scale = module.head_dim**-0.5
        by_bucket = _by_bucket(module, ahead)
        itself = (query_ahead * key_ahead).sum(-1, keepdim=True) * scale + by_bucket[..., :1]
        biases = [
            _picked(_by_bucket(module, own), buckets, distances),
            _picked(by_bucket, buckets, distances + 1) - itself,
        ]
        nothing, one = torch.zeros_like(key[..., :1]), torch.ones_like(value[..., :1])
        queries = [with_channel(heads, nothing) for heads in (query, query_ahead)]
        attended = attend_encoder_decoder(
            module, torch.stack(queries, 2).flatten(1, 2), with_channel(key, nothing), with_channel(value, one),
            CausalMask(None), scale, s_aux=sinks, position_bias=torch.stack(biases, 2).flatten(1, 2),
        )[0]  # fmt: skip
        pairs = attended.unflatten(2, (-1, 2))
        seen, rest = pairs[..., 1, : module.head_dim], 1 - pairs[..., 1, module.head_dim : module.head_dim + 1]
        predicting = seen + rest * value_ahead.transpose(1, 2)
        both = torch.cat([pairs[..., 0, : module.head_dim].flatten(2), predicting.flatten(2)], 1)
        return module.out_proj(both), None, None

    return forward


def _heads(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.unflatten(-1, (module.num_attn_heads, module.head_dim)).transpose(1, 2)


def _by_bucket(module: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """The biases that each token has for each bucket, float (batch, heads, sequence, buckets)."""
    biases = module.relative_pos_embeddings(hidden_states)
    by_head: torch.Tensor = biases.unflatten(-1, (module.num_buckets, module.num_attn_heads)).permute(0, 3, 1, 2)
    return by_head


def _picked(by_bucket: torch.Tensor, buckets: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """The biases for the distances to all keys, int64 (batch, 1, sequence, keys)."""
    index = buckets[distances.clamp(0, len(buckets) - 1)]
    return by_bucket.gather(-1, index.expand(-1, by_bucket.shape[1], -1, -1))
