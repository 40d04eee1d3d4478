"""Inputs that take several rows each, run with all the others in batches and put together again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from triform.runtime.arithmetic import Array, check_numbers
from triform.runtime.graphs.encoder_batch import EncoderStep
from triform.runtime.text.rows import Row

T = TypeVar("T")


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
