"""Makes LongT5's splitting of tokens into blocks traceable for any number of blocks.

torch.export decides once whether the last block is full, and how many classes a one-hot encoding has. The functions are
replaced only if the replacements compute the same on examples.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import patched

_WIDTH, _TOLERANCE = 4, 1e-5


@contextmanager
def blocks_of_any_number(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, `model` can be traced for any number of blocks."""
    files = {sys.modules[type(module).__module__] for module in model.modules()}
    with patched(
        (file, name, candidate)
        for file in files
        for name, candidate, same in _CANDIDATES
        if hasattr(file, name) and same(getattr(file, name))
    ):
        yield


def _split(x: torch.Tensor, block_len: int, dim: int) -> torch.Tensor:
    """Split the axis `dim`, padded with zeros, into blocks of `block_len`."""
    dim = dim % x.ndim
    missing = -x.shape[dim] % block_len
    padded = torch.nn.functional.pad(x, [0, 0] * (x.ndim - 1 - dim) + [0, missing])
    return padded.unflatten(dim, (-1, block_len))


def _aggregate(hidden_states: torch.Tensor, block_ids: torch.Tensor, global_seq_len: int) -> torch.Tensor:
    """Sums over the tokens of each block, (batch, blocks, hidden_size); a token without a block has a negative id."""
    in_block = block_ids[..., None] == torch.arange(global_seq_len)
    return torch.einsum("...nd,...ng->...gd", hidden_states, in_block.to(hidden_states.dtype))


def _same_split(original: Callable[..., torch.Tensor]) -> bool:
    examples = [(torch.randn(2, length, 3), dim) for length in (5, 8) for dim in (1, -2)]
    return all(_equal(original, _split, x, _WIDTH, dim) for x, dim in examples)


def _same_aggregate(original: Callable[..., torch.Tensor]) -> bool:
    ids = torch.tensor([[0, 0, 1, 1, 2, -1], [0, 0, 0, 1, 1, 1]])
    return _equal(original, _aggregate, torch.randn(2, 6, 5), ids, 3)


def _equal(original: Callable[..., torch.Tensor], candidate: Callable[..., torch.Tensor], *arguments: Any) -> bool:
    try:
        expected = original(*arguments)
    except (TypeError, RuntimeError):
        return False
    actual = candidate(*arguments)
    return expected.shape == actual.shape and bool((expected - actual).abs().max() <= _TOLERANCE)


# Names of functions, replacements, and whether a function computes the same as its replacement.
_CANDIDATES: tuple[tuple[str, Callable[..., torch.Tensor], Callable[[Callable[..., torch.Tensor]], bool]], ...] = (
    ("_split_into_blocks", _split, _same_split),
    ("_create_global_aggregates", _aggregate, _same_aggregate),
)
