"""Models whose attention changes from some length on: they are exported for shorter texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.errors import UnsupportedModelError
from triform.models.patching import patched


@contextmanager
def all_selected(model: torch.nn.Module, max_length: int) -> Iterator[None]:
    """While the block runs, nothing selects tokens, because all would be selected.

    DeepSeek's layers select tokens, those of Qwen4 blocks of tokens, and those of Doge hide all but some.

    Args:
        model: the model to change; restored on exit.
        max_length: most tokens of a row.

    Raises:
        UnsupportedModelError: texts may be longer than the number of tokens that a layer selects.
    """
    tokens, blocks, kept = (_with_number(model, name) for name in ("index_topk", "token_budget", "keep_window_size"))
    limit = min((*tokens.values(), *blocks.values(), *kept.values()), default=max_length)
    _check_length(max_length, limit, f"its layers attend to the {limit} tokens that they select", "they attend to all")
    replaced = [(module, "forward", _select_nothing) for module in tokens]
    with patched([*replaced, *((module, "forward", _select_all) for module in blocks)]):
        yield


def _with_number(model: torch.nn.Module, name: str) -> dict[torch.nn.Module, int]:
    """The modules with an attribute that is a whole number, and these numbers."""
    return {module: value for module in model.modules() if isinstance(value := vars(module).get(name), int)}


def _check_length(max_length: int, limit: int, what: str, instead: str) -> None:
    if max_length > limit:
        raise UnsupportedModelError(f"{what}, which is not supported; with a context length of {limit} {instead}")


def _select_nothing(*_: Any, **__: Any) -> tuple[()]:
    """Takes the place of a selection, which the replaced attention does not read."""
    return ()


def _select_all(*_: Any, **__: Any) -> torch.Tensor:
    """Takes the place of a selection that is a mask, by which a model changes its own, see `FullMask`."""
    return torch.ones((), dtype=torch.bool)


@contextmanager
def untempered(model: torch.nn.Module, max_length: int) -> Iterator[None]:
    """While the block runs, no layer makes its queries sharper by the positions that it counts in a cache (Llama 4).

    Args:
        model: the model to change; restored on exit.
        max_length: most tokens of a row.

    Raises:
        UnsupportedModelError: texts may be as long as where that begins.
    """
    tempering = [module for module in model.modules() if getattr(module, "attn_temperature_tuning", False)]
    limit = min((int(vars(module)["floor_scale"]) - 1 for module in tempering), default=max_length)
    _check_length(max_length, limit, "its queries become sharper with their position in the cache", "they do not")
    with patched((module, "attn_temperature_tuning", False) for module in tempering):
        yield
