"""Finds the functions of transformers that carry a state along a text, and replaces them while a model is traced.

transformers writes its recurrent layers with a few functions, of which each modeling module has its own copy under the
same name. While a model is prepared, such a function records the states of the layers that call it; while it is traced,
it becomes one operator.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from triform.models.patching import patched
from triform.models.recurrent.convolution import CONVOLUTION
from triform.models.recurrent.delta_rules import DELTA_RULE
from triform.models.recurrent.passes import current_recurrent_pass
from triform.models.recurrent.recurrence import Call, Recurrence
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
    return any(hasattr(sys.modules[model_class.__module__], name) for name in _SCANS)


@contextmanager
def recurrences_replaced(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, the recurrences that `model` calls use the current `RecurrentPass`."""
    modules = {type(module).__module__: sys.modules[type(module).__module__] for module in model.modules()}
    with patched(replacement for module in modules.values() for replacement in _replacements(module)):
        yield


def _replacements(module: ModuleType) -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
    for name, recurrence in _RECURRENCES.items():
        function = getattr(module, name, None)
        if function is not None:
            yield module, name, _replacement(function, recurrence)


def _replacement(function: Callable[..., Any], recurrence: Recurrence) -> Callable[..., Any]:
    signature = inspect.signature(function)

    def replaced(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        call, current = bound.arguments, current_recurrent_pass()
        if current.past is not None:
            result = recurrence.emit(current, call)
            return (result, None) if recurrence.returns_state else result
        current.states.append(recurrence.state(call))
        return _alone(function, recurrence, call) if current.isolated else function(*arguments, **named)

    return replaced


def _alone(function: Callable[..., Any], recurrence: Recurrence, call: Call) -> Any:
    """The function's result if each token were a text of its own."""
    batch_and_length = None
    split = {name: value for name, value in call.items() if name != "kwargs"}
    for name, axis in recurrence.token_axes.items():
        if split[name] is None:
            continue
        by_token = split[name].movedim(axis, 1)
        batch_and_length = batch_and_length or by_token.shape[:2]
        split[name] = by_token.flatten(0, 1).unsqueeze(axis)
    result = function(**split)
    output = result[0] if recurrence.returns_state else result
    axis = next(iter(recurrence.token_axes.values()))
    output = output.squeeze(axis).unflatten(0, batch_and_length).movedim(1, axis)
    return (output, None) if recurrence.returns_state else output
