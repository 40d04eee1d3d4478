"""Chooses how to trace a model: the first of several paths that reproduces the model's own outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

import torch

from triform.models.errors import UnsupportedModelError, first_line
from triform.models.stored_weights import StoredWeight

_Path = TypeVar("_Path")
_Result = TypeVar("_Result")

# Largest allowed difference, relative to the largest output: the rounding of float32 sums in another order.
TOLERANCE = 1e-4
# Errors of a path that does not suit a model.
_EXPECTED = (LookupError, RuntimeError, TypeError, ValueError, AttributeError)


def relative_difference(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """The largest difference between two float tensors of one shape, divided by the largest expected value.

    Infinite if either has a value that is not finite, or if all expected values are zero but not all actual ones.
    """
    difference = float((actual - expected).abs().max())
    largest = float(expected.abs().max())
    if difference == 0:
        return 0.0
    return difference / largest if largest and math.isfinite(difference / largest) else math.inf


def check_finite(outputs: str, model: torch.nn.Module, values: Iterable[torch.Tensor]) -> None:
    """Refuse a model whose own outputs are NaN or infinite: nothing could be compared with them.

    Args:
        outputs: what they are, for the error.
        model: that gave them.
        values: float tensors of any shapes.

    Raises:
        UnsupportedModelError: a value is not finite; names the weight that is at fault, if one is.
    """
    if all(torch.isfinite(value).all() for value in values):
        return
    name = next(weights_not_finite(model), None)
    raise UnsupportedModelError(
        f"its {outputs} are NaN or infinite, "
        + ("though its weights are not" if name is None else f"and so are numbers in its weight {name}")
    )


def weights_not_finite(model: torch.nn.Module) -> Iterator[str]:
    """The names of parameters with a number that is NaN or infinite, also where no sample of a text reaches it.

    Stored weights are looked at in the type that they are stored in, and nothing is copied.
    """
    for name, parameter in model.named_parameters():
        weight = parameter.stored if isinstance(parameter, StoredWeight) else parameter.detach()
        # Either end is NaN where any number is.
        if weight.is_floating_point() and weight.numel() and not all(map(torch.isfinite, torch.aminmax(weight))):
            yield name


def choose_path(
    outputs: str, paths: Iterable[_Path], attempt: Callable[[_Path, ExitStack], tuple[float, _Result]]
) -> tuple[_Path, _Result, ExitStack]:
    """Choose the first path that reproduces the model's own outputs, and leave the model prepared for it.

    Args:
        outputs: the name of the outputs, for the error.
        paths: fastest first.
        attempt: called with a path and a stack, without gradients. It prepares the model for the path by contexts
            entered on the stack, runs the model on a small input, and returns the `relative_difference` of its outputs
            to the model's own, and what it learned about the model.

    Returns:
        the path, what the attempt learned, and the stack; closing the stack undoes the preparation.

    Raises:
        UnsupportedModelError: no path reproduces them; or an attempt raised it, which ends the search.
    """
    smallest: float | None = None
    problem: Exception | None = None
    for path in paths:
        with ExitStack() as stack:
            try:
                with torch.no_grad():
                    difference, result = attempt(path, stack)
            except UnsupportedModelError:
                raise
            except _EXPECTED as error:
                problem = error
                continue
            if difference <= TOLERANCE:
                return path, result, stack.pop_all()
            smallest = difference if smallest is None else min(smallest, difference)
    raise UnsupportedModelError(_reason(outputs, smallest, problem)) from problem


def _reason(outputs: str, difference: float | None, problem: Exception | None) -> str:
    failure = "" if problem is None else first_line(problem)
    if difference is None:
        return f"its attention cannot be replaced: {failure}"
    changed = f"its {outputs} change when its attention is replaced, by {difference:.2g} of the largest"
    return f"{changed}; another way fails: {failure}" if failure else changed
