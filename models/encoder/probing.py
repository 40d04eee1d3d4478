"""Small inputs to try an encoder on, and what its answers to them tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from triform.models.paths import TOLERANCE, relative_difference

if TYPE_CHECKING:
    from triform.models.spec import EncoderTask

# Ids to probe with, of a vocabulary that may be larger, or be all of Unicode.
_FEW_IDS = 100


def probe_inputs(model: PreTrainedModel, task: EncoderTask) -> tuple[torch.Tensor, ...]:
    """Two rows, the second padded; or two images."""
    batch, length, padding, picked = 2, 11, 4, 3
    generator = torch.Generator().manual_seed(0)
    text = model.config.get_text_config()
    made = {}
    for name in task.inputs:
        if name == "pixel_values":
            made[name] = torch.randn(batch, *(task.image_shape or (3, 32, 32)), generator=generator)
        elif name == "input_ids":
            most = min(getattr(text, "vocab_size", _FEW_IDS), _FEW_IDS)
            made[name] = torch.randint(5, max(6, most), (batch, length), generator=generator)
            made[name][1, -padding:] = text.pad_token_id or 0
        elif name == "attention_mask":
            made[name] = torch.ones(batch, length, dtype=torch.int64)
            made[name][1, -padding:] = 0
        else:
            made[name] = torch.zeros(batch, length, dtype=torch.int64)
    made |= {name: torch.arange(1, batch + 1) for name in task.beside}
    if task.picks_positions:
        made["logits_positions"] = torch.arange(batch * picked).reshape(batch, picked)
    return tuple(made.values())


def reads_padding(
    graph: Callable[..., tuple[torch.Tensor, ...]],
    task: EncoderTask,
    inputs: tuple[torch.Tensor, ...],
    expected: tuple[torch.Tensor, ...],
) -> bool:
    """Whether the model says something else of a text when padding stands behind it."""
    mask = tokens(task, inputs)
    if mask is None:
        return False
    length = int(mask[1].sum())
    alone = [tensor[1:, :length] if tensor.shape == mask.shape else tensor[1:] for tensor in inputs]
    with torch.no_grad():
        actual = graph(*alone)
    for together, single in zip(expected, actual, strict=True):
        own = together[1:, :length] if together.shape[:2] == mask.shape else together[1:]
        if own.shape != single.shape or relative_difference(own, single) > TOLERANCE:
            return True
    return False


def tokens(task: EncoderTask, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
    """Bool (batch, sequence), true where there are tokens; None for a task without padding."""
    return inputs[task.inputs.index("attention_mask")].bool() if "attention_mask" in task.inputs else None


def difference_at_tokens(expected: torch.Tensor, actual: torch.Tensor, mask: torch.Tensor | None) -> float:
    """The relative difference of two outputs where there are tokens; what comes out at padding means nothing.

    Args:
        expected: float (batch, sequence, ...), or of any other shape, of which all is compared.
        actual: as `expected`.
        mask: from `tokens`.
    """
    if mask is not None and expected.shape[:2] == mask.shape:
        expected, actual = expected[mask], actual[mask]
    return relative_difference(expected, actual)
