"""Attention for long texts: what of it can be exported.

In Longformer and LED each token sees a window around it, and a few tokens see and are seen by all.

transformers computes it in chunks, which torch.export cannot trace for any length. Here it is attention to all tokens
with a bias that hides those outside of the window (Beltagy et al. 2020, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PretrainedConfig

from triform.models.attention.bidirectional import attend_bidirectional
from triform.models.patching import kind_of, patched

_ATTENTION = ("modeling_longformer.LongformerSelfAttention", "modeling_led.LEDEncoderSelfAttention")
# Those that pad a text to whole chunks.
_PADDING = ("modeling_longformer.LongformerModel", "modeling_led.LEDEncoder")


@contextmanager
def unchunked(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, such attention is computed without chunks; other modules of `model` stay as they are."""
    attention = [(module, "forward", _forward(module)) for module in model.modules() if kind_of(module) in _ATTENTION]
    padding = [(module, "_pad_to_window_size", _unpadded) for module in model.modules() if kind_of(module) in _PADDING]
    with patched([*attention, *padding]):
        yield


def whole_attention_limit(config: PretrainedConfig) -> int | None:
    """The most tokens of a text to which BigBird attends as a whole; None for other models, and without its blocks.

    In longer texts each token sees random blocks, which are no part of an exported graph. The formula is
    transformers'.
    """
    if getattr(config, "attention_type", None) != "block_sparse":
        return None
    return int((5 + 2 * config.num_random_blocks) * config.block_size)


def _unpadded(*, pad_token_id: int, **inputs: Any) -> tuple[Any, ...]:
    """The length of the padding, and the inputs in the order in which they are given."""
    return (0, *inputs.values())


def _forward(module: Any) -> Callable[..., tuple[torch.Tensor]]:
    # Whether any token saw all others outside tracing: without any, that part is left out.
    seen_by_all: list[bool] = []

    def forward(
        hidden_states: torch.Tensor, is_index_masked: torch.Tensor, is_index_global_attn: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        if not torch.compiler.is_exporting():
            seen_by_all[:] = [bool(is_index_global_attn.any())]
        places = torch.arange(hidden_states.shape[1])
        near = (places[:, None] - places).abs() <= module.one_sided_attn_window_size
        visible = (near | is_index_global_attn[:, None]) & ~is_index_masked[:, None]
        output = _attend(module, "", hidden_states, visible)
        if seen_by_all[0]:
            everywhere = (~is_index_masked)[:, None].expand_as(visible)
            whole = _attend(module, "_global", hidden_states, everywhere)
            output = torch.where(is_index_global_attn[..., None], whole, output)
        return (output,)

    return forward


def _attend(module: Any, suffix: str, hidden_states: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Attention by the projections whose names end in `suffix`, to what is visible, bool (batch, queries, keys)."""
    projections = (getattr(module, f"{name}{suffix}") for name in ("query", "key", "value"))
    query, key, value = (
        projection(hidden_states).unflatten(-1, (module.num_heads, module.head_dim)).transpose(1, 2)
        for projection in projections
    )
    hidden = torch.finfo(query.dtype).min
    bias = torch.zeros(visible.shape).masked_fill(~visible, hidden)[:, None]
    return attend_bidirectional(module, query, key, value, bias)[0].flatten(2)
