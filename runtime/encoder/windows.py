"""Runs inputs that were split into windows, batched with all others, and collects the results of each input."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from triform.runtime.arithmetic import Array, check_numbers
from triform.runtime.graphs.encoder_batch import EncoderStep
from triform.runtime.text.rows import TokenRow

Input = TypeVar("Input")


def run_windows(
    step: EncoderStep, inputs: Iterable[tuple[Input, Sequence[TokenRow]]], outputs: Sequence[str]
) -> Iterator[tuple[Input, list[TokenRow], list[tuple[Array, ...]]]]:
    """Run the windows of any number of inputs, in bounded memory.

    Args:
        step: runs the rows.
        inputs: each input with its windows; windows without tokens are left out.
        outputs: names of graph outputs.

    Yields:
        each input, its windows, and what `EncoderStep.run` returns for each window.

    Raises:
        BundleError: an output holds NaN or an infinity.
        TriformError: onnxruntime failed.
    """
    waiting: deque[tuple[Input, list[TokenRow]]] = deque()

    def rows() -> Iterator[TokenRow]:
        for item, windows in inputs:
            filled = [window for window in windows if window.ids]
            waiting.append((item, filled))
            yield from filled

    results: list[tuple[Array, ...]] = []
    for result in step.in_batches(rows(), outputs):
        while not waiting[0][1]:
            yield (*waiting.popleft(), [])
        check_numbers(result)
        results.append(result)
        if len(results) == len(waiting[0][1]):
            yield (*waiting.popleft(), results)
            results = []
    yield from ((*item, []) for item in waiting)
