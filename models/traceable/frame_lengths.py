"""How many frames a model's convolutions leave, in whole numbers: torch.export cannot follow rounded fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_METHOD = "_get_feat_extract_output_lengths"
# Lengths at which every remainder of the usual strides comes up.
_TRIED = range(2000, 3000, 7)


@contextmanager
def whole_frame_lengths(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, modules of `model` count frames by dividing whole numbers.

    Only those do whose own count is that of their convolutions, one after another, for many lengths.
    """
    changed = []
    for module in model.modules():
        original = getattr(module, _METHOD, None)
        candidate = _by_convolutions(module)
        if original is not None and candidate is not None and _same(original, candidate):
            setattr(module, _METHOD, candidate)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__[_METHOD]


def _by_convolutions(module: torch.nn.Module) -> Callable[[Any], Any] | None:
    """The length that convolutions of `module` itself leave; None where it has none, or they fill up."""
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
        return all(int(original(length)) == candidate(length) for length in _TRIED)
    except (TypeError, RuntimeError):
        return False
