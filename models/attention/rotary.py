"""Rotary position embeddings: from a model's own code to tables the attention operator reads.

Two ways out of a model, chosen by comparing numbers, never by the model's name:

*fused*: the model's rotary module is asked for the cosines and sines of every position, once; the function that would
apply them returns queries and keys as they are, and the attention operator rotates them by table. Cheapest.

*native*: the model's own code is traced as it stands. Needed where the frequencies depend on the length of the
sequence (dynamic NTK, longrope) or where the rotation is of a kind the operator does not know.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_APPLY = "apply_rotary_pos_emb"
# How models lay out their cosines: (pairs are neighbours, which columns hold each angle once).
_LAYOUTS: tuple[tuple[bool, Callable[[int], slice]], ...] = (
    (False, lambda width: slice(0, width // 2)),
    (True, lambda width: slice(0, width, 2)),
    (False, lambda width: slice(0, width)),
    (True, lambda width: slice(0, width)),
)


@dataclass(frozen=True)
class RotaryTable:
    """Cosines and sines by position, as GroupQueryAttention takes them.

    Attributes:
        cos: float (max_length, rotary_dim / 2).
        sin: as `cos`.
        interleaved: whether a pair is two neighbours (x0, x1) rather than one of each half (x0, x[rotary_dim/2]).
    """

    cos: torch.Tensor
    sin: torch.Tensor
    interleaved: bool


def rotate(tensor: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Rotate by position, as the attention operator does (RoFormer, https://arxiv.org/abs/2104.09864).

    Args:
        tensor: float (batch, heads, sequence, head_dim); row t of `sequence` stands at position t.
        table: its rotary_dim may be less than head_dim; the remaining channels pass unchanged.

    Returns:
        float, the shape of `tensor`.
    """
    length, half = tensor.shape[2], table.cos.shape[-1]
    cos, sin = table.cos[:length], table.sin[:length]
    turned, rest = tensor[..., : 2 * half], tensor[..., 2 * half :]
    if table.interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned[..., :half], turned[..., half:]
    pair = (first * cos - second * sin, second * cos + first * sin)
    turned = torch.stack(pair, -1).flatten(-2) if table.interleaved else torch.cat(pair, -1)
    return torch.cat([turned, rest], dim=-1)


def rotary_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The submodules that turn positions into cosines and sines: those that hold inverse frequencies."""
    return [
        module
        for module in model.modules()
        if any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))
    ]


def depends_on_length(module: torch.nn.Module) -> bool:
    """Whether a rotary module's frequencies change with the length of the sequence (dynamic NTK, longrope)."""
    rope_type = getattr(module, "rope_type", "default")
    kinds = rope_type.values() if isinstance(rope_type, dict) else [rope_type]
    return any("dynamic" in kind or kind == "longrope" for kind in kinds)


@contextmanager
def fused_rotary(model: torch.nn.Module, max_length: int, announce: Callable[[RotaryTable], None]) -> Iterator[None]:
    """While the block runs, rotary modules give whole tables and applying them only announces the table.

    Args:
        model: the model to change; restored on exit.
        max_length: positions in a table.
        announce: called with the table each time a layer would have rotated its queries and keys.
    """
    tables: dict[int, RotaryTable] = {}

    def whole_table(module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        original, made = module.forward, {}

        def forward(x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            key = (*args, *sorted(kwargs.items()))
            if key not in made:
                positions = torch.arange(max_length)[None]
                made[key] = original(torch.zeros(1, dtype=x.dtype), positions, *args, **kwargs)
            return made[key]

        return forward

    def apply(original: Callable[..., Any]) -> Callable[..., Any]:
        def note(q: Any, k: Any, cos: torch.Tensor, sin: torch.Tensor, *_: Any, **__: Any) -> Any:
            if id(cos) not in tables:
                tables[id(cos)] = _identify(original, q.shape[-1], cos, sin)
            announce(tables[id(cos)])
            return q, k

        return note

    with _replaced_forwards(rotary_modules(model), whole_table), _replaced_functions(model, apply):
        # Tables must exist before tracing starts: a tensor made while tracing is symbolic, not a constant.
        yield


@contextmanager
def native_rotary(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, rotary modules whose frequencies depend on the length do so without keeping state.

    transformers stores the current frequencies in the module and branches on the length, which cannot be traced. The
    same formulas are evaluated here for the length of each call.
    """
    varying = [module for module in rotary_modules(model) if depends_on_length(module)]

    def stateless(module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        plain = inspect.unwrap(type(module).forward)

        def forward(
            x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            stand_in = _Frequencies(module, layer_type, position_ids.max() + 1)
            kwargs = {} if layer_type is None else {"layer_type": layer_type}
            result: tuple[torch.Tensor, torch.Tensor] = plain(stand_in, x, position_ids, **kwargs)
            return result

        return forward

    with _replaced_forwards(varying, stateless):
        yield


class _Frequencies:
    """A rotary module as its own `forward` sees it, with the frequencies of one sequence length."""

    def __init__(self, module: torch.nn.Module, layer_type: str | None, length: torch.Tensor) -> None:
        prefix = "" if layer_type is None else f"{layer_type}_"
        self._module = module
        setattr(self, f"{prefix}inv_freq", _frequencies_at(module, layer_type, prefix, length))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _frequencies_at(module: Any, layer_type: str | None, prefix: str, length: torch.Tensor) -> torch.Tensor:
    config = module.config
    rope_type = module.rope_type if layer_type is None else module.rope_type[layer_type]
    original: torch.Tensor = getattr(module, f"{prefix}original_inv_freq")
    if rope_type == "longrope":
        rope = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
        limit = rope["original_max_position_embeddings"]
        stretched, _ = ROPE_INIT_FUNCTIONS[rope_type](
            config, torch.device("cpu"), seq_len=limit + 1, layer_type=layer_type
        )
        return torch.where(length > limit, stretched, original)
    if "dynamic" in rope_type:
        grown, _ = ROPE_INIT_FUNCTIONS[rope_type](config, torch.device("cpu"), seq_len=length, layer_type=layer_type)
        return torch.where(length > module.original_max_seq_len, grown, original)
    return original


def _identify(original: Callable[..., Any], head_dim: int, cos: torch.Tensor, sin: torch.Tensor) -> RotaryTable:
    """Find which rotation `original` performs by rotating random numbers both ways.

    Raises:
        LookupError: neither of the operator's two rotations.
    """
    with torch.no_grad():
        length, width = min(cos.shape[-2], 7), cos.shape[-1]
        generator = torch.Generator().manual_seed(0)
        query = torch.randn(1, 1, length, head_dim, generator=generator)
        key = torch.randn(1, 1, length, head_dim, generator=generator)
        rotated, _ = original(query, key, cos[:, :length], sin[:, :length])
        for interleaved, pick in _LAYOUTS:
            half = cos[0, :, pick(width)].shape[-1]
            if 2 * half > head_dim:
                continue
            table = RotaryTable(cos[0, :, pick(width)].contiguous(), sin[0, :, pick(width)].contiguous(), interleaved)
            if torch.allclose(rotate(query, table), rotated, atol=1e-5):
                return table
    raise LookupError("not a rotation the attention operator performs")


@contextmanager
def _replaced_forwards(
    modules: list[torch.nn.Module], make: Callable[[torch.nn.Module], Callable[..., Any]]
) -> Iterator[None]:
    for module in modules:
        module.forward = make(module)
    try:
        yield
    finally:
        for module in modules:
            del module.__dict__["forward"]


@contextmanager
def _replaced_functions(
    model: torch.nn.Module, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    files = {sys.modules[type(module).__module__] for module in model.modules()}
    saved = [(file, getattr(file, _APPLY)) for file in files if hasattr(file, _APPLY)]
    for file, original in saved:
        setattr(file, _APPLY, make(original))
    try:
        yield
    finally:
        for file, original in saved:
            setattr(file, _APPLY, original)
