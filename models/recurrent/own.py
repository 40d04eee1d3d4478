"""Adapts layers that carry a state by code of their own, and not by a function that transformers' models share.

What is replaced is the layer's forward function. The replacements call functions that are written here in PyTorch, and
that are traced as those of transformers are, see `following_pass`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from triform.models.patching import kind_of
from triform.models.recurrent.calls import following_pass
from triform.models.recurrent.convolution import CONVOLUTION
from triform.models.recurrent.gated import GATED

_Forward = Callable[..., Any]


def own_recurrences(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, _Forward]]:
    """The layers of `model` that carry a state by code of their own, with replacements of their forward functions."""
    for module in model.modules():
        if kind_of(module) in _FORWARDS:
            yield module, "forward", _FORWARDS[kind_of(module)](module)


def has_own_recurrence(module_name: str) -> bool:
    """Whether one of the layers that are known here is written in a Python module."""
    return any(kind.startswith(f"{module_name.rpartition('.')[2]}.") for kind in _FORWARDS)


def _read_linearly(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """Gated linear attention, token by token: each decays the state, adds its key and value to it, and reads it.

    Args:
        query: float (batch, sequence, key heads, key width).
        key: as `query`.
        value: float (batch, sequence, heads, value width); consecutive heads share a key head.
        decay: float (batch, sequence, heads): natural logarithms.

    Returns:
        float (batch, sequence, heads, value width).
    """
    groups = value.shape[2] // key.shape[2]
    query, key = query.repeat_interleave(groups, 2), key.repeat_interleave(groups, 2)
    state = value.new_zeros(value.shape[0], value.shape[2], key.shape[3], value.shape[3])
    outputs = []
    for token in range(value.shape[1]):
        state = state * decay[:, token, :, None, None].exp() + key[:, token, ..., None] * value[:, token, :, None]
        outputs.append((query[:, token, :, None] @ state).squeeze(2))
    return torch.stack(outputs, 1)


def _convolve(
    hidden_states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str | None = None
) -> torch.Tensor:
    """Each channel's convolution with the tokens before: float (batch, channels, sequence) as `hidden_states`."""
    width = weight.shape[-1] - 1
    padded = torch.nn.functional.pad(hidden_states, (width, 0))
    return torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=weight.shape[0])


read_linearly = following_pass(_read_linearly, GATED)
convolve = following_pass(_convolve, CONVOLUTION)


def _lightning_attention(module: Any) -> _Forward:
    """Of MiniMax (arXiv:2501.08313): linear attention whose decay is the same for all tokens."""

    def forward(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        projected = module.act_fn(module.qkv_proj(hidden_states)).unflatten(-1, (module.num_attention_heads, -1))
        query, key, value = projected.chunk(3, dim=-1)
        decay = (-module.slope_rate.flatten()).expand(*hidden_states.shape[:2], -1)
        output = module.norm(read_linearly(query, key, value, decay).flatten(2))
        return module.out_proj(torch.sigmoid(module.output_gate(hidden_states)) * output), None

    return forward


def _gated_linear_unit(module: Any) -> _Forward:
    """The RG-LRU of Griffin (arXiv:2402.19427): every channel is a head whose state is one number."""

    def forward(activations: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        heads = activations.unflatten(-1, (module.num_attention_heads, -1))
        input_gate = _by_head(heads, module.input_gate_weight, module.input_gate_bias)
        recurrent_gate = _by_head(heads, module.recurrent_gate_weight, module.recurrent_gate_bias)
        decay = -8.0 * recurrent_gate * torch.nn.functional.softplus(module.recurrent_param)
        # The first token of a text is not scaled: there is no state before it.
        scale = torch.where(position_ids[..., None] == 0, 1.0, torch.sqrt(1 - torch.exp(2 * decay)))
        value = activations * input_gate * scale
        # A state of one number is read and written as it is.
        one = torch.ones_like(value[:, :, :1, None])
        return read_linearly(one, one, value[..., None], decay).squeeze(-1)

    return forward


def _dynamic_convolution(module: Any) -> _Forward:
    """Of Inkling 2: a convolution whose weights are a constant for each channel, and a number that each token gives."""

    def forward(hidden_states: torch.Tensor, dynamic_input: torch.Tensor, **_: Any) -> torch.Tensor:
        size, heads = module.conv_kernel_size, module.num_heads
        # A channel's last values: convolutions that only shift it, by one token more each.
        shifts = torch.eye(size).flip(0).repeat_interleave(hidden_states.shape[-1], 0)
        shifted = convolve(hidden_states.transpose(1, 2).repeat(1, size, 1), shifts, None).transpose(1, 2)
        windows = shifted.unflatten(-1, (size, heads, -1))
        constant = module.static_weight.unflatten(-1, (heads, -1))
        by_token = module.weight_proj(dynamic_input).unflatten(-1, (heads, size)).transpose(-1, -2)
        summed = (windows * (constant + by_token[..., None])).sum(2).flatten(2)
        return (summed + hidden_states) / math.sqrt(2 * size + 1)

    return forward


def _by_head(heads: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A gate of each channel, from the channels of its head: float (batch, sequence, channels)."""
    products = (heads[..., None, :] @ weight).squeeze(-2)
    return torch.sigmoid(products + bias).flatten(2)


def _recurrent_block(module: Any) -> _Forward:
    """The block of Griffin around its RG-LRU."""

    def forward(input_states: torch.Tensor, position_ids: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        gate = module.act_fn(module.linear_y(input_states))
        values = module.linear_x(input_states).transpose(1, 2)
        values = convolve(values, module.conv_1d.weight[:, 0], module.conv_1d.bias).transpose(1, 2)
        return module.linear_out(module.rg_lru(values, position_ids) * gate), None

    return forward


_FORWARDS: dict[str, Callable[[Any], _Forward]] = {
    "modeling_minimax.MiniMaxLightningAttention": _lightning_attention,
    "modeling_recurrent_gemma.RecurrentGemmaRecurrentBlock": _recurrent_block,
    "modeling_recurrent_gemma.RecurrentGemmaRglru": _gated_linear_unit,
    "modeling_inkling2.Inkling2DynamicShortConvolution": _dynamic_convolution,
    "modeling_inkling2_loop.Inkling2LoopDynamicShortConvolution": _dynamic_convolution,
}
