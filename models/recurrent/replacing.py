"""Finds the functions of transformers that carry a state along a text, and replaces them while a model is traced.

transformers writes its recurrent layers with a few functions, of which each modeling module has its own copy under the
same name. While a model is prepared, such a function records the states of the layers that call it; while it is traced,
it becomes one operator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from triform.models.patching import patched
from triform.models.recurrent.calls import following_pass
from triform.models.recurrent.convolution import CONVOLUTION
from triform.models.recurrent.delta_rules import DELTA_RULE
from triform.models.recurrent.own import has_own_recurrence, own_recurrences
from triform.models.recurrent.state_spaces import MAMBA2_SCAN, MAMBA_SCAN

_SCANS = {
    "torch_chunk_gated_delta_rule": DELTA_RULE,
    "chunk_kimi_delta_attention": DELTA_RULE,
    "mamba2_chunk_scan": MAMBA2_SCAN,
    "mamba_selective_scan": MAMBA_SCAN,
}
_RECURRENCES = {"causal_conv1d_fn": CONVOLUTION, **_SCANS}


def has_known_scan(model_class: Any) -> bool:
    """Whether the module that a class of transformers is written in has a scan that can be replaced."""
    module = model_class.__module__
    return has_own_recurrence(module) or any(hasattr(sys.modules[module], name) for name in _SCANS)


@contextmanager
def recurrences_replaced(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, the recurrences that `model` calls use the current `RecurrentPass`."""
    modules = {type(module).__module__: sys.modules[type(module).__module__] for module in model.modules()}
    functions = (replacement for module in modules.values() for replacement in _replacements(module))
    with patched(functions), patched(own_recurrences(model)):
        yield


def _replacements(module: ModuleType) -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
    for name, recurrence in _RECURRENCES.items():
        function = getattr(module, name, None)
        if function is not None:
            yield module, name, following_pass(function, recurrence)
