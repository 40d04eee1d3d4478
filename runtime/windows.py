"""Inputs that take several rows each, run with all the others in batches and put together again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from triform.runtime.encoder_step import EncoderStep
from triform.runtime.errors import BundleError
from triform.runtime.rows import Row

T = TypeVar("T")
Array = NDArray[np.float32]


def run_windows(
    step: EncoderStep, inputs: Iterable[tuple[T, Sequence[Row]]], outputs: Sequence[str]
) -> Iterator[tuple[T, list[Row], list[tuple[Array, ...]]]]:
    """Run the windows of any number of inputs, in bounded memory.

    Args:
        step: runs them.
        inputs: anything, and the windows it was cut into; windows without tokens are left out.
        outputs: names of graph outputs.

    Yields:
        each input, its windows, and for each window what `EncoderStep.run` returns.

    Raises:
        BundleError: an output holds NaN or an infinity.
        TriformError: onnxruntime failed.
    """
    waiting: deque[tuple[T, list[Row]]] = deque()

    def rows() -> Iterator[Row]:
        for one, windows in inputs:
            filled = [window for window in windows if window.ids]
            waiting.append((one, filled))
            yield from filled

    found: list[tuple[Array, ...]] = []
    for result in step.in_batches(rows(), outputs):
        while not waiting[0][1]:
            yield (*waiting.popleft(), [])
        check_numbers(result)
        found.append(result)
        if len(found) == len(waiting[0][1]):
            yield (*waiting.popleft(), found)
            found = []
    yield from ((*one, []) for one in waiting)


def check_numbers(results: Iterable[Array]) -> None:
    """Check that results are numbers.

    Raises:
        BundleError: one holds NaN or an infinity.
    """
    if not all(np.isfinite(result).all() for result in results):
        raise BundleError(
            "the model computed results that are not numbers (NaN); check its files with `triform verify`"
        )
