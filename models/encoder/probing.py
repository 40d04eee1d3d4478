"""Runs an encoder on small inputs, to compare results and to find whether it reads padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from triform.models.paths import TOLERANCE, relative_difference
from triform.models.traceable.classified_end import classifies_end

if TYPE_CHECKING:
    from triform.models.spec import EncoderTask

# Ids of probe inputs are below this, however large the vocabulary is.
_PROBE_IDS = 100
# Rows of probe inputs, and their tokens.
PROBE_SHAPE = (2, 11)


def probe_inputs(model: PreTrainedModel, task: EncoderTask) -> tuple[torch.Tensor, ...]:
    """Inputs of `task.names`, in order: two rows of tokens, the second padded, or its examples."""
    (batch, length), padding, num_logits = PROBE_SHAPE, 4, 3
    generator = torch.Generator().manual_seed(0)
    text = model.config.get_text_config()
    inputs = {}
    for name in task.inputs:
        if name in task.examples:
            inputs[name] = task.examples[name]
        elif name == "input_ids":
            most = min(getattr(text, "vocab_size", _PROBE_IDS), _PROBE_IDS)
            inputs[name] = torch.randint(5, max(6, most), (batch, length), generator=generator)
            if classifies_end(model):
                inputs[name][0, -1] = inputs[name][1, -padding - 1] = model.config.eos_token_id
            if task.mask is not None:
                inputs[name][1, -padding:] = getattr(text, "pad_token_id", None) or 0
        elif name == "attention_mask":
            inputs[name] = torch.ones(batch, length, dtype=torch.int64)
            inputs[name][1, -padding:] = 0
        else:
            inputs[name] = torch.zeros(batch, length, dtype=torch.int64)
    inputs |= {name: torch.arange(1, batch + 1) for name in task.beside}
    if task.picks_positions:
        inputs["logits_positions"] = torch.arange(batch * num_logits).reshape(batch, num_logits)
    return tuple(inputs.values())


def reads_padding(
    graph: Callable[..., tuple[torch.Tensor, ...]],
    task: EncoderTask,
    inputs: tuple[torch.Tensor, ...],
    expected: tuple[torch.Tensor, ...],
) -> bool:
    """Whether the model's results for a text change when padding follows it."""
    mask = tokens(task, inputs)
    if mask is None:
        return False
    length = int(mask[1].sum())
    alone = [tensor[1:, :length] if tensor.shape[:2] == mask.shape else tensor[1:] for tensor in inputs]
    with torch.no_grad():
        actual = graph(*alone)
    counts = _own_counts(task, mask)
    for together, single in zip(expected, actual, strict=True):
        own = together[1:, : counts[1]] if _is_ragged(together, task, mask) else together[1:]
        if own.shape != single.shape or relative_difference(own, single) > TOLERANCE:
            return True
    return False


def tokens(task: EncoderTask, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
    """Bool (batch, sequence), true at tokens; None for a task without a mask."""
    return None if task.mask is None else inputs[task.inputs.index(task.mask)].bool()


def difference_at_tokens(
    task: EncoderTask, expected: torch.Tensor, actual: torch.Tensor, mask: torch.Tensor | None
) -> float:
    """The relative difference of two outputs at tokens; outputs at padding mean nothing.

    Args:
        task: that the outputs are of.
        expected: float (batch, sequence or frames, ...); of any other shape, all values are compared.
        actual: as `expected`.
        mask: from `tokens`.
    """
    if mask is not None and _is_ragged(expected, task, mask):
        own = torch.arange(expected.shape[1]) < torch.tensor(_own_counts(task, mask))[:, None]
        expected, actual = expected[own], actual[own]
    return relative_difference(expected, actual)


def _own_counts(task: EncoderTask, mask: torch.Tensor) -> list[int]:
    """How many tokens, or frames, of each row are its own."""
    lengths = [int(length) for length in mask.sum(-1)]
    return lengths if task.frames is None else [task.frames.count(length) for length in lengths]


def _is_ragged(output: torch.Tensor, task: EncoderTask, mask: torch.Tensor) -> bool:
    """Whether an output has an axis of tokens or frames."""
    longest = mask.shape[1] if task.frames is None else task.frames.count(mask.shape[1])
    return output.shape[:2] == (mask.shape[0], longest) and (task.frames is None or output.dim() > 2)
