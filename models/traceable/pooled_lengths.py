"""Makes an encoder whose blocks pool their tokens traceable for any length (Funnel-Transformer, arXiv:2006.03236).

transformers computes distances from lists of positions, and pools with operators whose lengths torch.export cannot
tell to be equal. Here the tokens of a pooled text are picked by their index, and distances follow from a formula.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import kind_of, patched

_FILE = "modeling_funnel"


def shortest_pooled(model: Any) -> int | None:
    """The fewest tokens of a text that every block of a model pools; None for a model that pools nothing."""
    config = next((module.config for module in model.modules() if kind_of(module) == f"{_FILE}.FunnelEncoder"), None)
    return None if config is None else next(length for length in range(1, 1 << 20) if _pools_all(config, length))


def _pools_all(config: Any, length: int) -> bool:
    """Whether a text of `length` tokens is pooled before each block but the first; very short ones are not."""
    for _ in config.block_sizes[1:]:
        if length <= 2:
            return False
        length = (length + 1) // 2
    return True


@contextmanager
def pooled_by_index(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, such a model pools by index; other models stay as they are.

    As published models do it: the first token is pooled with itself, and the last one is left out.
    """
    with patched(_replacements(model)):
        yield


def _replacements(model: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if not getattr(config, "truncate_seq", False) or not getattr(config, "separate_cls", False):
            continue
        if kind_of(module) == f"{_FILE}.FunnelAttentionStructure":
            yield module, "stride_pool", _strided
            yield module, "pool_tensor", _pooled
            if config.attention_type == "relative_shift":
                yield module, "get_position_embeds", lambda *_: None
        if kind_of(module) == f"{_FILE}.FunnelRelMultiheadAttention" and config.attention_type == "relative_shift":
            yield from _by_distance(module)
        if kind_of(module) == f"{_FILE}.FunnelDecoder":
            yield sys.modules[type(module).__module__], "upsample", _upsampled


def _strided(tensor: Any, axis: Any) -> Any:
    """The first of each two tokens, along one axis or several."""
    if tensor is None:
        return None
    if isinstance(tensor, tuple | list):
        return type(tensor)(_strided(part, axis) for part in tensor)
    for single in axis if isinstance(axis, tuple | list) else [axis]:
        # transformers counts the axes of a batch that the mask of the first token does not have.
        place = single % tensor.dim()
        tensor = tensor.index_select(place, _firsts(tensor.shape[place]))
    return tensor


def _firsts(length: int) -> torch.Tensor:
    """The first token of each pair, int64 (pairs,)."""
    return (2 * torch.arange((length + 1) // 2) - 1).clamp(min=0)


def _pooled(tensor: Any, mode: str = "mean", stride: int = 2) -> Any:
    """One token of each two, (batch, pairs) or (batch, pairs, hidden_size)."""
    if tensor is None:
        return None
    if isinstance(tensor, tuple | list):
        return type(tensor)(_pooled(part, mode, stride) for part in tensor)
    first = _firsts(tensor.shape[1])
    places = 2 * torch.arange(first.shape[0])
    # Without its second token, which is left out, the last pair is its first one.
    second = torch.where(places <= tensor.shape[1] - 2, places, first)
    pair = tensor.index_select(1, first), tensor.index_select(1, second)
    if mode == "mean":
        return (pair[0] + pair[1]) / 2
    return torch.minimum(*pair) if mode == "min" else torch.maximum(*pair)


def _upsampled(
    x: torch.Tensor, stride: int, target_len: int, separate_cls: bool = True, truncate_seq: bool = False
) -> torch.Tensor:
    """Each pooled token as often as it has tokens, and zeros for those that were left out."""
    if stride == 1:
        return x
    places = torch.arange(target_len)
    index = torch.where(places > 0, (places - 1) // stride + 1, 0)
    count = x.shape[1]
    repeated = x.index_select(1, index.clamp(max=count - 1))
    return repeated * (index < count)[:, None].to(x.dtype)


def _by_distance(module: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Attention whose scores by distance are computed for all distances, and picked for each query and key."""
    original, config = module.forward, module.config
    pooled_queries: list[bool] = []

    def forward(query: torch.Tensor, key: torch.Tensor, *others: Any, **named: Any) -> Any:
        pooled_queries[:] = [query is not key]
        return original(query, key, *others, **named)

    def scores(_: Any, q_head: torch.Tensor, context_len: int, cls_mask: torch.Tensor | None = None) -> torch.Tensor:
        queries, block = q_head.shape[1], module.block_index
        # Tokens from one query to the next, in keys; tokens of the text in a key; and where the first query begins.
        shift, stride, start = (2, 2 ** (block - 1), -(2 ** (block - 1))) if pooled_queries[0] else (1, 2**block, 0)
        distances = start + stride * (shift * queries - torch.arange(shift * queries + context_len))
        frequencies = 1 / 10000 ** (torch.arange(config.d_model // 2) / (config.d_model // 2))
        angles = distances[:, None] * frequencies
        by_distance = torch.einsum("td,dnh->tnh", torch.cat([angles.sin(), angles.cos()], -1), module.r_kernel)
        every = torch.einsum("binh,tnh->bnit", q_head + module.r_r_bias * module.scale, by_distance)
        index = shift * (queries - torch.arange(queries))[:, None] + torch.arange(context_len)
        picked = every.gather(3, index.expand(*every.shape[:2], -1, -1))
        return picked if cls_mask is None else picked * cls_mask

    yield module, "forward", forward
    yield module, "relative_positional_attention", scores
