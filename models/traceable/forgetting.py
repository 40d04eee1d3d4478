"""Lets modules forget the rotary embedding of their last input, which tracing would make a constant of the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import patched

# Where a module keeps the length that what it remembers is for.
_LENGTH = "cached_sequence_length"


@contextmanager
def forgetful(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, modules of `model` compute each time what they would remember for the last length."""
    with patched((module, "forward", _forgetting(module)) for module in model.modules() if hasattr(module, _LENGTH)):
        yield


def _forgetting(module: Any) -> Callable[..., Any]:
    original = module.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        setattr(module, _LENGTH, None)
        return original(*arguments, **named)

    return forward
