"""Counts the frames after a model's convolutions with integers, because torch.export cannot trace rounded fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import patched

_LENGTHS = "_get_feat_extract_output_lengths"
# Lengths with every remainder of the usual strides.
_EXAMPLES = range(2000, 3000, 7)


@contextmanager
def whole_frame_lengths(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, modules of `model` count frames with integer division.

    A module's method is replaced only if both give the same numbers for many lengths.
    """
    candidates = [(module, getattr(module, _LENGTHS, None), _by_convolutions(module)) for module in model.modules()]
    with patched(
        (module, _LENGTHS, candidate)
        for module, original, candidate in candidates
        if original is not None and candidate is not None and _same(original, candidate)
    ):
        yield


def _by_convolutions(module: torch.nn.Module) -> Callable[[Any], Any] | None:
    """The length after the convolutions of `module` itself; None if it has none, or they have padding or dilation."""
    layers = [child for child in module.children() if isinstance(child, torch.nn.Conv1d)]
    if not layers or any(layer.padding != (0,) or layer.dilation != (1,) for layer in layers):
        return None
    steps = [(layer.kernel_size[0], layer.stride[0]) for layer in layers]

    def lengths(length: Any) -> Any:
        for kernel, stride in steps:
            length = (length - kernel) // stride + 1
        return length

    return lengths


def _same(original: Callable[[Any], Any], candidate: Callable[[Any], Any]) -> bool:
    try:
        return all(int(original(length)) == candidate(length) for length in _EXAMPLES)
    except (TypeError, RuntimeError):
        return False
