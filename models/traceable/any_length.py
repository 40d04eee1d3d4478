"""Makes CANINE's local attention and downsampling traceable for any length (Clark et al. 2021, sections 3.1-3.3).

torch.export unrolls a loop over the blocks of a local attention, which fixes their number. It also cannot tell that a
sequence that was downsampled and then repeated is as long as the text again. A method is replaced only if the
replacement computes the same on examples of several lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import patched

_TOLERANCE = 1e-5


@contextmanager
def any_length(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, these modules of `model` can be traced for any length."""
    replacements = ((module, *candidate) for module in model.modules() for candidate in _candidates(module))
    with patched(replacements):
        yield


def _candidates(module: torch.nn.Module) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Names of methods and their replacements."""
    if getattr(module, "local", False) and hasattr(module, "attend_to_chunk_width"):
        blocks = _block_attention(module)
        if _same_attention(module, blocks):
            yield "forward", blocks
    rate = getattr(getattr(module, "config", None), "downsampling_rate", None)
    if not isinstance(rate, int):
        return
    for name, candidate, examples in (
        ("_downsample_attention_mask", _shorter_mask, _masks(rate)),
        ("_repeat_molecules", _repeater(rate), _molecules(rate)),
    ):
        original = getattr(module, name, None)
        if original is not None and all(_equal(original, candidate, example) for example in examples):
            yield name, candidate


def _block_attention(module: Any) -> Callable[..., tuple[torch.Tensor]]:
    """Attention within blocks of a fixed width, as attention to all tokens with a mask that hides the other blocks."""
    width: int = module.attend_to_chunk_width

    def forward(
        hidden_states: torch.Tensor, attention_mask: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor]:
        block = torch.arange(hidden_states.shape[1]) // width
        same_block = (block[:, None] == block).to(attention_mask.dtype)
        attended = module.self(hidden_states, hidden_states, attention_mask * same_block, False)[0]
        return (module.output(attended, hidden_states),)

    return forward


def _same_attention(module: Any, candidate: Callable[..., tuple[torch.Tensor]]) -> bool:
    width, hidden = module.attend_to_chunk_width, module.output.dense.in_features
    generator = torch.Generator().manual_seed(0)
    for length in (1, width, 2 * width + 3):
        states = torch.randn(2, length, hidden, generator=generator)
        mask = torch.ones(2, length, length)
        # Some keys of each block stay visible: without any, the results of both mean nothing.
        mask[1, :, 1::3] = 0
        if not _equal(lambda *inputs: module(*inputs)[0], lambda *inputs: candidate(*inputs)[0], (states, mask)):
            return False
    return True


def _shorter_mask(mask: torch.Tensor, downsampling_rate: int) -> torch.Tensor:
    """The maximum of each `downsampling_rate` numbers, like ``max_pool1d``, which would fix the length."""
    batch, length = mask.shape
    count = length // downsampling_rate
    return mask[:, : count * downsampling_rate].reshape(batch, count, downsampling_rate).float().amax(-1)


def _masks(rate: int) -> Iterator[tuple[Any, ...]]:
    for length in (rate, 2 * rate + 1, 5 * rate - 1):
        yield (torch.arange(2 * length).reshape(2, length) % 5 % 2, rate)


def _repeater(rate: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    def repeat(molecules: torch.Tensor, char_seq_length: int) -> torch.Tensor:
        # The first molecule belongs to the first character only; the last one also to all characters left over.
        index = torch.arange(char_seq_length) // rate + 1
        return molecules[:, torch.clamp(index, max=molecules.shape[1] - 1)]

    return repeat


def _molecules(rate: int) -> Iterator[tuple[Any, ...]]:
    for length in (rate, 2 * rate + 1, 5 * rate - 1):
        yield (torch.arange(2.0 * (length // rate) * 3).reshape(2, length // rate, 3), length)


def _equal(original: Callable[..., Any], candidate: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    try:
        with torch.no_grad():
            expected, actual = original(*inputs), candidate(*inputs)
    except (TypeError, RuntimeError, ValueError, IndexError):
        return False
    return expected.shape == actual.shape and torch.allclose(expected, actual, atol=_TOLERANCE)
