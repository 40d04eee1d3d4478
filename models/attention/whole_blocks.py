"""Makes attention within blocks of a fixed number of frames traceable for any length (Granite Speech 5).

transformers pads what is no whole number of blocks, which torch.export decides once. Here everything is padded before
the module, whose own padding is then none at every length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import kind_of, patched

_ATTENTION = "modeling_granite_speech5.GraniteSpeech5EncoderAttention"


def attention_block(model: torch.nn.Module) -> int | None:
    """The frames of a block, in the layers of such a model; None for other models."""
    sizes: list[Any] = [module.context_size for module in model.modules() if kind_of(module) == _ATTENTION]
    return int(sizes[0]) if sizes else None


@contextmanager
def whole_blocks(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, such attention gets whole blocks; other modules of `model` stay as they are."""
    modules = [module for module in model.modules() if kind_of(module) == _ATTENTION]
    with patched((module, "forward", _padded(module)) for module in modules):
        yield


def _padded(module: Any) -> Callable[..., tuple[torch.Tensor, None]]:
    original, size = module.forward, int(module.context_size)

    def forward(
        hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **others: Any
    ) -> tuple[torch.Tensor, None]:
        batch, length, _ = hidden_states.shape
        # Not the remainder of the negative length: of this sum, torch.export can tell that it is whole blocks.
        missing = (length + size - 1) // size * size - length
        if attention_mask is None:
            attention_mask = torch.ones(batch, length, dtype=torch.bool)
        output, _ = original(
            hidden_states=torch.nn.functional.pad(hidden_states, (0, 0, 0, missing)),
            attention_mask=torch.nn.functional.pad(attention_mask, (0, missing), value=False),
            **others,
        )
        return output[:, :length], None

    return forward
