"""Turns a model's rotary position embeddings into tables for the attention operator, or makes them traceable.

There are two ways, and which one is used depends on the model's results, never on its name:

*fused*: the model's rotary module computes the cosines and sines of every position once. The function that would apply
them returns queries and keys unchanged, and the attention operator rotates them by table. This is the fastest way.

*native*: the model's own code is traced. This is needed where the frequencies depend on the length of the sequence
(dynamic NTK, longrope), and where the operator does not support the kind of rotation.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from triform.models.patching import patched

_APPLY = "apply_rotary_pos_emb"
_TWO_SETS = "longrope"
# The attribute of a module whose frequencies no longer depend on the length.
_FIXED = "fixed_for_length"
# How models lay out their cosines: (whether pairs are adjacent, the columns that hold each angle once).
_LAYOUTS: tuple[tuple[bool, Callable[[int], slice]], ...] = (
    (False, lambda width: slice(0, width // 2)),
    (True, lambda width: slice(0, width, 2)),
    (False, lambda width: slice(0, width)),
    (True, lambda width: slice(0, width)),
)


@dataclass(frozen=True)
class RotaryTable:
    """Cosines and sines by position, in the layout of GroupQueryAttention.

    Attributes:
        cos: float (max_length, rotary_dim / 2).
        sin: as `cos`.
        interleaved: whether a pair is adjacent (x0, x1) rather than split over the halves (x0, x[rotary_dim/2]).
    """

    cos: torch.Tensor
    sin: torch.Tensor
    interleaved: bool


def rotate(tensor: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Rotate by position, as the attention operator does (RoFormer, arXiv:2104.09864).

    Args:
        tensor: float (batch, heads, sequence, head_dim); index t of `sequence` is at position t.
        table: its rotary_dim may be less than head_dim; the remaining channels stay unchanged.

    Returns:
        float, the shape of `tensor`.
    """
    length, half = tensor.shape[2], table.cos.shape[-1]
    cos, sin = table.cos[:length], table.sin[:length]
    rotated, rest = tensor[..., : 2 * half], tensor[..., 2 * half :]
    if table.interleaved:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
    else:
        first, second = rotated[..., :half], rotated[..., half:]
    pair = (first * cos - second * sin, second * cos + first * sin)
    rotated = torch.stack(pair, -1).flatten(-2) if table.interleaved else torch.cat(pair, -1)
    return torch.cat([rotated, rest], dim=-1)


def rotary_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The submodules that compute cosines and sines of positions, recognized by their inverse frequencies."""
    return [
        module
        for module in model.modules()
        if any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))
    ]


def depends_on_length(module: torch.nn.Module) -> bool:
    """Whether a rotary module's frequencies change with the length of the sequence (dynamic NTK, longrope)."""
    return not hasattr(module, _FIXED) and any("dynamic" in kind or kind == _TWO_SETS for kind in _kinds(module))


def _kinds(module: torch.nn.Module) -> list[str]:
    rope_type = getattr(module, "rope_type", "default")
    return list(rope_type.values()) if isinstance(rope_type, dict) else [rope_type]


def switching_length(config: Any) -> int | None:
    """The most tokens of a text for the first of longrope's two sets of frequencies; None for other embeddings."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    layers = [item for item in (rope, *rope.values()) if isinstance(item, dict) and item.get("rope_type") == _TWO_SETS]
    return min((int(item["original_max_position_embeddings"]) for item in layers), default=None)


def fix_frequencies(model: torch.nn.Module, max_length: int) -> None:
    """Have rotary modules whose frequencies change with the length of a text use those of one length for every text.

    Keys in a cache are rotated once, when they are read, so that the frequencies must be chosen beforehand. Longrope
    (arXiv:2402.13753) has two sets; transformers uses the first for texts up to a length, and the second for all
    positions of a longer text, those that it has read already too. Here, as in llama.cpp, it is the one for texts of
    `max_length` tokens. Dynamic NTK changes nothing up to max_position_embeddings, which no context exceeds.

    Args:
        model: changed in place.
        max_length: most tokens of a text.
    """
    for module in rotary_modules(model):
        if depends_on_length(module):
            module.forward = _by_table(module.forward, max_length)
            setattr(module, _FIXED, max_length)


def _by_table(original: Callable[..., Any], max_length: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A rotary module's `forward` that computes all positions once, as those of one text, and looks them up."""
    whole = _of_all_positions(original, max_length)

    def forward(x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(table[0][position_ids] for table in whole(x, position_ids, *args, **kwargs))

    return forward


def _of_all_positions(original: Callable[..., Any], max_length: int) -> Callable[..., Any]:
    """A rotary module's `forward` that gives the tables of all positions, whichever are asked for, computed once."""
    tables: dict[Any, Any] = {}

    def forward(x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        key = (x.dtype, *args, *sorted(kwargs.items()))
        if key not in tables:
            tables[key] = original(torch.zeros(1, dtype=x.dtype), torch.arange(max_length)[None], *args, **kwargs)
        return tables[key]

    return forward


@contextmanager
def fused_rotary(model: torch.nn.Module, max_length: int, announce: Callable[[RotaryTable], None]) -> Iterator[None]:
    """While the block runs, rotary modules return whole tables, and applying a table only announces it.

    Run the model once inside the block before tracing it: a table that is made while tracing is symbolic, not constant.

    Args:
        model: the model to change; restored on exit.
        max_length: positions of a table.
        announce: called with the table each time a layer would rotate its queries and keys.
    """
    tables: dict[int, RotaryTable] = {}

    def apply(original: Callable[..., Any]) -> Callable[..., Any]:
        def announce_table(q: Any, k: Any, cos: torch.Tensor, sin: torch.Tensor, *_: Any, **__: Any) -> Any:
            if cos.shape[-2] != max_length:
                # Part of a table is made anew for each text, and rotates as if the text began at its first row.
                raise LookupError("it rotates by a part of its tables that depends on the length of a text")
            if id(cos) not in tables:
                tables[id(cos)] = _identify(original, q.shape[-1], cos, sin)
            announce(tables[id(cos)])
            return q, k

        return announce_table

    forwards = [(module, "forward", _of_all_positions(module.forward, max_length)) for module in rotary_modules(model)]
    functions = [(file, _APPLY, apply(original)) for file, original in _applying_functions(model)]
    with patched([*forwards, *functions]):
        yield


@contextmanager
def native_rotary(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, rotary modules whose frequencies depend on the length keep no state.

    transformers stores the current frequencies in the module and branches on the length, which cannot be traced. Here
    the same formulas are evaluated for the length of each call.
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

    with patched((module, "forward", stateless(module)) for module in varying):
        yield


class _Frequencies:
    """Passed as ``self`` to a rotary module's `forward`: the module, with the frequencies of one sequence length."""

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
    """Find the rotation that `original` performs, by comparing the rotations of random numbers.

    Raises:
        LookupError: it is neither of the operator's two rotations.
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


def _applying_functions(model: torch.nn.Module) -> list[tuple[ModuleType, Callable[..., Any]]]:
    """The functions that apply rotary embeddings, with the Python modules that the model's classes come from."""
    files = {sys.modules[type(module).__module__] for module in model.modules()}
    return [(file, getattr(file, _APPLY)) for file in files if hasattr(file, _APPLY)]
