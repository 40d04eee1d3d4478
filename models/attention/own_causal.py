"""Adapts older decoders, whose attention does not use transformers' AttentionInterface.

What is replaced of an attention module is its forward function, or its method `_attn`, which follows the projections
and the rotation. Both replacements call `attend_causal`. The linear biases of ALiBi (arXiv:2108.12409) are taken from
the model as a table by the position of the key. Biases that a model computes by the distance of each query and key are
computed by the positions of the current pass, because such models count from the start of the tokens that they see.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.attention.causal import SlidingWindow, attend_causal, current_pass
from triform.models.attention.layout import with_channel
from triform.models.errors import UnsupportedModelError
from triform.models.patching import kind_of, patched

# The name of the argument of an attention's forward that holds the linear biases, by the attention's kind.
_BIAS_ARGUMENTS = {
    "modeling_bloom.BloomAttention": "alibi",
    "modeling_falcon.FalconAttention": "alibi",
    "modeling_mpt.MptAttention": "position_bias",
}
# The kinds whose biases depend on the distance of each query and key.
_DISTANCE_BIASES = (
    "modeling_inkling.InklingAttention",
    "modeling_inkling2.Inkling2FullAttention",
    "modeling_inkling2_loop.Inkling2LoopFullAttention",
    "modeling_inkling2.Inkling2SlidingAttention",
    "modeling_inkling2_loop.Inkling2LoopSlidingAttention",
)


class _Stopped(Exception):
    """Ends a forward pass early, with an argument of a module."""

    def __init__(self, argument: torch.Tensor | None) -> None:
        super().__init__()
        self.argument = argument


class _NoMask:
    """Takes the place of a mask tensor, which no replacement reads."""

    ndim = 0

    def to(self, *_: Any) -> _NoMask:
        return self


def reads_key_positions(model: torch.nn.Module) -> bool:
    """Whether the attention of a model adds biases by position, so that it reads `ForwardPass.key_positions`."""
    return _has_linear_biases(model) or any(kind_of(module) in _DISTANCE_BIASES for module in model.modules())


def _has_linear_biases(model: torch.nn.Module) -> bool:
    """Whether the biases of a model's attention are ALiBi's."""
    biased = [module for module in model.modules() if kind_of(module) in _BIAS_ARGUMENTS]
    # Falcon has either these or a rotary embedding.
    return any(getattr(module.config, "alibi", True) if hasattr(module, "config") else True for module in biased)


@contextmanager
def through_causal(model: torch.nn.Module, max_length: int) -> Iterator[None]:
    """While the block runs, the attention modules of such models call `attend_causal`; other models stay as they are.

    Args:
        model: restored on exit.
        max_length: positions of the table of linear biases.

    Raises:
        UnsupportedModelError: the model has biases for fewer positions.
    """
    own = [module for module in model.modules() if kind_of(module) in _REPLACEMENTS]
    files = {sys.modules[type(module).__module__] for module in own}
    masks = [(file, "create_causal_mask", _no_mask) for file in files if hasattr(file, "create_causal_mask")]
    with patched([*masks, *_beside_attention(model)]):
        table = _bias_table(model, own[0], max_length) if own and _has_linear_biases(model) else None
        with patched((module, *_REPLACEMENTS[kind_of(module)](module, table)) for module in own):
            yield


def _beside_attention(model: torch.nn.Module) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """What is replaced of models whose attention calls `attend_causal` by itself."""
    for module in model.modules():
        file = sys.modules[type(module).__module__]
        if kind_of(module) in _DISTANCE_BIASES and hasattr(file, "get_relative_distance"):
            yield file, "get_relative_distance", _relative_distance
        if kind_of(module) in _OVER_LAYERS:
            yield module, "forward", _OVER_LAYERS[kind_of(module)](module)


def _no_mask(*_: Any, **__: Any) -> _NoMask:
    return _NoMask()


def _bias_table(model: torch.nn.Module, attention: Any, max_length: int) -> torch.Tensor:
    """The biases that the model's first attention is given for a text of `max_length` tokens: float (heads, keys)."""

    def stop(*_: Any, **arguments: Any) -> None:
        raise _Stopped(arguments[_BIAS_ARGUMENTS[kind_of(attention)]])

    try:
        with torch.no_grad(), patched([(attention, "forward", stop)]):
            model(input_ids=torch.zeros(1, max_length, dtype=torch.int64), use_cache=False)
    except _Stopped as stopped:
        biases = stopped.argument
    if biases is None or biases.shape[-1] < max_length:
        raise UnsupportedModelError(f"its attention has biases for fewer than {max_length} positions")
    # Biases of all keys but the last ones are for longer texts; only their differences matter.
    return biases.reshape(-1, biases.shape[-1])[:, -max_length:].float().contiguous()


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: SlidingWindow | None = None,
    table: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `attend_causal`, with the biases of `table`."""
    biases = None
    if table is not None:
        keys = current_pass().key_positions
        columns = table[:, torch.arange(key.shape[2]) if keys is None else keys]
        biases = columns[None, :, None].expand(1, query.shape[1], query.shape[2], columns.shape[1])
    output, _ = attend_causal(module, query, key, value, window, scale, position_bias=biases)
    return output


# A replacement: the name of what is replaced, and the function that takes its place.
_Replacement = tuple[str, Callable[..., Any]]


def _bloom(module: Any, table: torch.Tensor | None) -> _Replacement:
    def forward(hidden_states: torch.Tensor, residual: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        query, key, value = module._reshape(module.query_key_value(hidden_states))
        output = _attend(module, query, key, value, module.inv_norm_factor, table=table)
        return module.dense(output.flatten(2)) + residual, None

    return "forward", forward


def _falcon(module: Any, table: torch.Tensor | None) -> _Replacement:
    def forward(
        hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], **_: Any
    ) -> tuple[torch.Tensor, None]:
        query, key, value = _falcon_heads(module, module.query_key_value(hidden_states))
        if table is None:
            # Looked up at each call, because the rotation may be replaced too.
            rotate = sys.modules[type(module).__module__].apply_rotary_pos_emb
            query, key = rotate(query, key, *position_embeddings)
        scaled = None if table is None else table * module.inv_norm_factor
        output = _attend(module, query, key, value, scale=module.inv_norm_factor, table=scaled)
        return module.dense(output.flatten(2)), None

    return "forward", forward


def _falcon_heads(module: Any, projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values, (batch, heads, sequence, head_dim): those that share a key stand before it."""
    groups = module.num_heads // module.num_kv_heads
    heads = projected.unflatten(-1, (module.num_kv_heads, groups + 2, module.head_dim))
    query = heads[:, :, :, :-2].flatten(2, 3)
    return query.transpose(1, 2), heads[:, :, :, -2].transpose(1, 2), heads[:, :, :, -1].transpose(1, 2)


def _mpt(module: Any, table: torch.Tensor | None) -> _Replacement:
    def forward(hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        projected = module.Wqkv(hidden_states)
        if module.clip_qkv:
            projected = projected.clamp(min=-module.clip_qkv, max=module.clip_qkv)
        query, key, value = (_heads(part, module.n_heads) for part in projected.chunk(3, dim=2))
        output = _attend(module, query, key, value, module.softmax_scale, table=table)
        return module.out_proj(output.flatten(2)), None

    return "forward", forward


def _bart(module: Any, _: torch.Tensor | None) -> _Replacement:
    """Of decoders that have BART's projections."""

    def forward(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        projections = (module.q_proj, module.k_proj, module.v_proj)
        query, key, value = (_heads(projection(hidden_states), module.num_heads) for projection in projections)
        return module.out_proj(_attend(module, query, key, value, module.scaling).flatten(2)), None

    return "forward", forward


def _heads(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return tensor.unflatten(-1, (count, -1)).transpose(1, 2)


def _learned_positions(module: Any, _: torch.Tensor | None) -> _Replacement:
    """Of decoders that count the tokens of a cache instead of taking positions."""

    def forward(input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        positions = current_pass().positions(input_ids.shape[1])
        return torch.nn.functional.embedding(positions + module.offset, module.weight)

    return "forward", forward


def _gpt_neo(module: Any, _: torch.Tensor | None) -> _Replacement:
    window = SlidingWindow(module.config.window_size) if module.attention_type == "local" else None

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None]:
        return _attend(module, query, key, value, scale=1.0, window=window).transpose(1, 2), None

    return "_attn", attend


def _gpt_neox_japanese(module: Any, _: torch.Tensor | None) -> _Replacement:
    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None]:
        return _attend(module, query, key, value, scale=1 / module.norm_factor).transpose(1, 2), None

    return "_attn", attend


def _openai_gpt(module: Any, _: torch.Tensor | None) -> _Replacement:
    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> list[torch.Tensor]:
        scale = value.shape[-1] ** -0.5 if module.scale else 1.0
        # Its keys are (batch, heads, head_dim, sequence).
        return [_attend(module, query, key.transpose(2, 3), value, scale=scale).transpose(1, 2)]

    return "_attn", attend


def _git(module: Any, _: torch.Tensor | None) -> _Replacement:
    def forward(hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        query, key, value = (
            _heads(projection(hidden_states), module.num_attention_heads)
            for projection in (module.query, module.key, module.value)
        )
        return _attend(module, query, key, value, module.attention_head_size**-0.5).flatten(2), None

    return "forward", forward


def _doge(module: Any, _: torch.Tensor | None) -> _Replacement:
    """Dynamic mask attention: each key adds a bias of its own to its scores, which its value gives."""

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: Any = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, module.head_dim))
            for projection in (module.q_proj, module.k_proj, module.v_proj)
        )
        biases = torch.exp(module.A * torch.nn.functional.softplus(module.dt_proj(value.flatten(2))))
        rotate = sys.modules[type(module).__module__].apply_rotary_pos_emb
        query, key = rotate(
            module.q_norm(query).transpose(1, 2), module.k_norm(key).transpose(1, 2), *position_embeddings
        )
        # A channel of the key holds the bias, so that the cache keeps it, and the same channel of the query is 1.
        key = with_channel(key, biases.transpose(1, 2)[..., None] / module.scaling)
        query = with_channel(query, torch.ones_like(query[..., :1]))
        window = attention_mask if isinstance(attention_mask, SlidingWindow) else None
        output = _attend(module, query, key, value.transpose(1, 2), module.scaling, window)
        return module.o_proj(output.flatten(2)), None

    return "forward", forward


def _inkling(module: Any, _: torch.Tensor | None) -> _Replacement:
    def forward(hidden_states: torch.Tensor, attention_mask: Any = None, **_: Any) -> tuple[torch.Tensor, None]:
        query = module.q_norm(module.q_proj(hidden_states).unflatten(-1, (-1, module.head_dim))).transpose(1, 2)
        key = module.k_sconv(module.k_proj(hidden_states)).unflatten(-1, (-1, module.head_dim))
        value = module.v_sconv(module.v_proj(hidden_states)).unflatten(-1, (-1, module.head_dim))
        states = module.r_proj(hidden_states).unflatten(-1, (module.num_heads, -1))
        distances, profiles = current_pass().distances(query.shape[2]), module.rel_logits_proj
        by_distance = (states @ profiles.proj).transpose(1, 2)
        index = distances.clamp(0, profiles.rel_extent - 1).expand(*by_distance.shape[:2], -1, -1)
        biases = by_distance.gather(-1, index)
        biases = biases.masked_fill((distances < 0) | (distances >= profiles.rel_extent), 0.0)
        config = module.config
        if not module.is_sliding and config.log_scaling_n_floor is not None:
            counts = current_pass().positions(query.shape[2]) + 1.0
            sharper = 1 + config.log_scaling_alpha * torch.log((counts / config.log_scaling_n_floor).clamp(min=1))
            query, biases = query * sharper[:, None, :, None], biases * sharper[:, None, :, None]
        window = attention_mask if isinstance(attention_mask, SlidingWindow) else None
        attended = attend_causal(
            module, query, module.k_norm(key).transpose(1, 2), value.transpose(1, 2), window, module.scaling,
            position_bias=biases,
        )[0]  # fmt: skip
        return module.o_proj(attended.flatten(2)), None

    return "forward", forward


def _relative_distance(inputs_embeds: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return current_pass().distances(inputs_embeds.shape[1])


def _over_layers(module: Any) -> Callable[..., tuple[torch.Tensor, ...]]:
    """Attention of a token to what earlier layers said of the same token."""

    def forward(block_states: torch.Tensor, partial_block_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states = module.norm(torch.cat([block_states, partial_block_states.unsqueeze(-2)], dim=-2))
        query = module.query.reshape(-1, states.shape[-1])
        weights = (states @ query.T * states.shape[-1] ** -0.5).softmax(-2)
        return (weights.transpose(-1, -2) @ states).unbind(-2)

    return forward


_REPLACEMENTS: dict[str, Callable[[Any, torch.Tensor | None], _Replacement]] = {
    "modeling_bloom.BloomAttention": _bloom,
    "modeling_falcon.FalconAttention": _falcon,
    "modeling_mpt.MptAttention": _mpt,
    "modeling_xglm.XGLMAttention": _bart,
    "modeling_trocr.TrOCRAttention": _bart,
    "modeling_trocr.TrOCRLearnedPositionalEmbedding": _learned_positions,
    "modeling_gpt_neo.GPTNeoSelfAttention": _gpt_neo,
    "modeling_gpt_neox_japanese.GPTNeoXJapaneseAttention": _gpt_neox_japanese,
    "modeling_openai.Attention": _openai_gpt,
    "modeling_git.GitSelfAttention": _git,
    "modeling_doge.DogeAttention": _doge,
    "modeling_inkling.InklingAttention": _inkling,
}
_OVER_LAYERS: dict[str, Callable[[Any], Callable[..., tuple[torch.Tensor, ...]]]] = {
    "modeling_inkling2.Inkling2BlockAttentionResidual": _over_layers,
    "modeling_inkling2_loop.Inkling2LoopBlockAttentionResidual": _over_layers,
}
