"""Replaces one parameter of a command by the options that it is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import get_type_hints


def replace_parameters(
    run: Callable[..., int], command: Callable[..., int], replacements: Mapping[str, Sequence[inspect.Parameter]]
) -> None:
    """Give a function the signature of a command, in which others stand in the place of some parameters.

    Args:
        run: the function that typer calls.
        command: the command that `run` calls.
        replacements: keyword-only parameters, by the name of the parameter that they replace. That is keyword-only
            too, and has no default.
    """
    own = inspect.signature(command).parameters
    required = [item for item in own.values() if item.kind is item.KEYWORD_ONLY and item.default is item.empty]
    # The types of parameters to replace, now or by another decorator, are imported for type checkers only.
    unread = {str(item.annotation): object for item in required}
    hints = get_type_hints(command, localns=unread, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for name, item in own.items():
        if name in replacements:
            parameters += replacements[name]
        else:
            parameters.append(item if item in required else item.replace(annotation=hints[name]))
    # typer reads these two.
    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {item.name: item.annotation for item in parameters}
