"""Makes a decoder read the positions of its tokens from the graph's inputs instead of the length of a cache.

The embeddings of all absolute positions, from the decoder's own ``embed_positions``, become a table; for relative
positions (T5), the biases of all distances do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import embedding

from triform.models.errors import UnsupportedModelError, first_line
from triform.models.patching import patched


@dataclass
class Positions:
    """The positions of one forward pass.

    Attributes:
        queries: int64 (batch, sequence), of the tokens of this pass.
        keys: int64 (total,), of these and all earlier tokens.
    """

    queries: torch.Tensor
    keys: torch.Tensor


class _Stopped(Exception):
    """Ends a forward pass early, with the output of a module."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output


@contextmanager
def positions_from(
    decoder: torch.nn.Module, positions: Positions, max_length: int, run: Callable[[torch.Tensor], object]
) -> Iterator[None]:
    """While the block runs, `decoder` reads `positions` at each forward pass.

    Args:
        decoder: transformers' decoder, restored on exit.
        positions: the caller changes it before each forward pass.
        max_length: positions of the table.
        run: runs the whole model on decoder token ids, int64 (1, sequence).

    Raises:
        UnsupportedModelError: the decoder has fewer positions.
    """
    with patched(_replacements(decoder, positions, max_length, run)):
        yield


def _replacements(
    decoder: torch.nn.Module, positions: Positions, max_length: int, run: Callable[[torch.Tensor], object]
) -> Iterator[tuple[torch.nn.Module, str, Callable[..., torch.Tensor]]]:
    for name, module in decoder.named_modules():
        if name.endswith("embed_positions"):
            yield module, "forward", _absolute(_absolute_table(module, max_length, run), positions)
        if hasattr(module, "relative_attention_bias") and hasattr(module, "compute_bias"):
            yield module, "compute_bias", _relative(_distance_table(module), positions)


def uses_distances(decoder: torch.nn.Module) -> bool:
    """Whether the decoder's attention adds biases by the distance of two tokens (relative positions)."""
    return any(hasattr(module, "relative_attention_bias") for module in decoder.modules())


def _absolute_table(module: torch.nn.Module, max_length: int, run: Callable[[torch.Tensor], object]) -> torch.Tensor:
    """The output of a module of position embeddings for a whole row: float (max_length, hidden_size)."""

    def stop(_: torch.nn.Module, __: Any, output: torch.Tensor) -> None:
        raise _Stopped(output)

    # Some models give padding no position.
    ids = torch.full((1, max_length), 1 if getattr(module, "padding_idx", None) == 0 else 0)
    hook = module.register_forward_hook(stop)
    try:
        with torch.no_grad():
            run(ids)
    except _Stopped as stopped:
        return stopped.output.reshape(max_length, -1).detach().clone()
    except (IndexError, RuntimeError, ValueError) as error:
        raise UnsupportedModelError(
            f"its decoder has fewer than {max_length} positions: {first_line(error)}"
        ) from error
    finally:
        hook.remove()
    raise UnsupportedModelError("its decoder does not use its own position embeddings")


def _absolute(table: torch.Tensor, positions: Positions) -> Callable[..., torch.Tensor]:
    def forward(*_: Any, **__: Any) -> torch.Tensor:
        return embedding(positions.queries, table)

    return forward


def _distance_table(module: Any) -> torch.Tensor:
    """Biases by distance, float (distances, num_heads); the last row is for all larger distances too."""
    furthest = module.relative_attention_max_distance
    with torch.no_grad():
        # The last query's biases, nearest key first.
        return module.compute_bias(furthest + 1, furthest + 1)[0, :, -1].flip(-1).T.contiguous()


def _relative(table: torch.Tensor, positions: Positions) -> Callable[..., torch.Tensor]:
    def compute_bias(*_: Any, **__: Any) -> torch.Tensor:
        distance = positions.queries[:, :, None] - positions.keys
        return embedding(distance.clamp(0, len(table) - 1), table).permute(0, 3, 1, 2)

    return compute_bias
