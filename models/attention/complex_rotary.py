"""Makes rotations that are written as products of complex numbers traceable: ONNX has only real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.attention.rotary import depends_on_length, rotary_modules
from triform.models.errors import UnsupportedModelError
from triform.models.patching import patched

_APPLY = "apply_rotary_emb"


@contextmanager
def real_rotary(model: torch.nn.Module, max_length: int) -> Iterator[None]:
    """While the block runs, rotary modules that give complex numbers give cosines and sines, which are applied as such.

    Args:
        model: the model to change; restored on exit.
        max_length: positions of a table.

    Raises:
        UnsupportedModelError: complex numbers depend on the length, or are applied in an unknown way.
    """
    modules = [module for module in rotary_modules(model) if _is_complex(module)]
    if any(map(depends_on_length, modules)):
        raise UnsupportedModelError("its rotations are complex numbers that depend on the length of the text")
    files = {sys.modules[type(module).__module__] for module in modules}
    forwards = [(module, "forward", _table_rows(module, max_length)) for module in modules]
    functions = [(file, _APPLY, _real(getattr(file, _APPLY))) for file in files if hasattr(file, _APPLY)]
    with patched([*forwards, *functions]):
        yield


def _is_complex(module: torch.nn.Module) -> bool:
    with torch.no_grad():
        try:
            result = module(torch.zeros(1), torch.zeros(1, 1, dtype=torch.int64))
        except TypeError:  # it takes the kind of layer too, which no rotation by complex numbers does
            return False
    return isinstance(result, torch.Tensor) and result.is_complex()


def _table_rows(module: torch.nn.Module, max_length: int) -> Callable[..., torch.Tensor]:
    """A forward that gives float (batch, sequence, rotary_dim / 2, 2), cosines and sines."""
    with torch.no_grad():
        table = torch.view_as_real(module(torch.zeros(1), torch.arange(max_length)[None]))[0].contiguous()

    def forward(_: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        return table[position_ids]

    return forward


def _real(original: Callable[..., Any]) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The rotation of queries and keys by cosines and sines instead of complex numbers."""
    axis = _heads_axis(original)

    def rotated(values: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        cos, sin = (part.unsqueeze(axis) for part in angles.unbind(-1))
        first, second = values[..., 0::2], values[..., 1::2]
        return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)

    return lambda query, key, angles: (rotated(query, angles), rotated(key, angles))


def _heads_axis(original: Callable[..., Any]) -> int:
    """The axis of the heads in the queries: 1 of (batch, heads, sequence, head_dim), or 2 if the sequence is before."""
    length, heads, pairs = 5, 3, 2
    angles = torch.polar(torch.ones(1, length, pairs), torch.ones(1, length, pairs))
    for axis, shape in ((1, (1, heads, length, 2 * pairs)), (2, (1, length, heads, 2 * pairs))):
        values = torch.ones(shape)
        try:
            original(values, values, angles)
        except RuntimeError:  # shapes that do not broadcast
            continue
        return axis
    raise UnsupportedModelError("its rotations are complex numbers, applied in an unknown way")
