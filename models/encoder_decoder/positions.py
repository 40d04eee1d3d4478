"""Where a decoder's tokens stand, told to the model by the graph's inputs instead of by the length of a cache.

Absolute positions: what the decoder's own `embed_positions` gives for every position is made a table once. Relative
positions (T5): the biases of every distance are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import embedding

from triform.models.errors import UnsupportedModelError, first_line


@dataclass
class Positions:
    """The positions of one forward pass.

    Attributes:
        queries: int64 (batch, sequence), of the tokens that are fed.
        keys: int64 (total,), of those and all before them.
    """

    queries: torch.Tensor
    keys: torch.Tensor


class _Found(Exception):
    """Carries a module's output out of a forward pass that need not go on."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output


@contextmanager
def placed(
    decoder: torch.nn.Module, positions: Positions, max_length: int, run: Callable[[torch.Tensor], object]
) -> Iterator[None]:
    """While the block runs, `decoder` takes positions from what `positions` holds at that moment.

    Args:
        decoder: transformers' decoder, restored on exit.
        positions: changed by the caller before each forward pass.
        max_length: positions of the table.
        run: feeds token ids, int64 (1, sequence), to the model that `decoder` is part of.

    Raises:
        UnsupportedModelError: the decoder has fewer positions.
    """
    changed: list[tuple[torch.nn.Module, str]] = []
    for name, module in decoder.named_modules():
        if name.endswith("embed_positions"):
            module.forward = _absolute(_absolute_table(module, max_length, run), positions)
            changed.append((module, "forward"))
        if hasattr(module, "relative_attention_bias") and hasattr(module, "compute_bias"):
            module.compute_bias = _relative(_distance_table(module), positions)
            changed.append((module, "compute_bias"))
    try:
        yield
    finally:
        for module, name in changed:
            del module.__dict__[name]


def uses_distances(decoder: torch.nn.Module) -> bool:
    """Whether the decoder's attention depends on how far apart tokens are by a table of biases."""
    return any(hasattr(module, "relative_attention_bias") for module in decoder.modules())


def _absolute_table(module: torch.nn.Module, max_length: int, run: Callable[[torch.Tensor], object]) -> torch.Tensor:
    """Float (max_length, hidden_size): the output of the positions' module for a row of as many tokens."""

    def found(_: torch.nn.Module, __: Any, output: torch.Tensor) -> None:
        raise _Found(output)

    # Some models count no position for padding.
    ids = torch.full((1, max_length), 1 if getattr(module, "padding_idx", None) == 0 else 0)
    hook = module.register_forward_hook(found)
    try:
        with torch.no_grad():
            run(ids)
    except _Found as stopped:
        return stopped.output.reshape(max_length, -1).detach().clone()
    except (IndexError, RuntimeError, ValueError) as error:
        raise UnsupportedModelError(f"its decoder has no {max_length} positions: {first_line(error)}") from error
    finally:
        hook.remove()
    raise UnsupportedModelError("its decoder does not use its own positions")


def _absolute(table: torch.Tensor, positions: Positions) -> Any:
    def forward(*_: Any, **__: Any) -> torch.Tensor:
        return embedding(positions.queries, table)

    return forward


def _distance_table(module: Any) -> torch.Tensor:
    """Float (distances, num_heads): the bias of a key that many tokens back; the last row is for all beyond, too."""
    furthest = module.relative_attention_max_distance
    with torch.no_grad():
        # The last query's biases, nearest key first.
        return module.compute_bias(furthest + 1, furthest + 1)[0, :, -1].flip(-1).T.contiguous()


def _relative(table: torch.Tensor, positions: Positions) -> Any:
    def compute_bias(*_: Any, **__: Any) -> torch.Tensor:
        distance = positions.queries[:, :, None] - positions.keys
        return embedding(distance.clamp(0, len(table) - 1), table).permute(0, 3, 1, 2)

    return compute_bias
