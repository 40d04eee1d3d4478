"""Has calls of a function that carries a state along a text use the current pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from triform.models.recurrent.passes import current_recurrent_pass
from triform.models.recurrent.recurrence import Call, Recurrence


def following_pass(function: Callable[..., Any], recurrence: Recurrence) -> Callable[..., Any]:
    """The function as the current `RecurrentPass` wants it: recording its state, alone for each token, or traced."""
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
