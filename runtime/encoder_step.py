"""One run of an encoder graph over a batch, and batches over any number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.manifest import GraphInfo
from triform.runtime.rows import Row
from triform.runtime.session import run_failure

# Tokens, padding included, of one batch: enough to keep every core busy, few enough to stay in its cache.
TOKENS = 1024
# Rows read ahead, to put those of like length together.
WINDOW = 4096

Array = NDArray[np.float32]


class EncoderStep:
    """Drives one encoder session. Knows token ids and arrays only: no text, no files."""

    def __init__(self, session: Any, graph: GraphInfo, pad: int | None) -> None:
        self._session = session
        self._inputs = [info.name for info in graph.inputs]
        self._pad = pad or 0
        self.outputs = {info.name: info for info in graph.outputs}

    def run(
        self, rows: Sequence[Row], outputs: Sequence[str], positions: Sequence[Sequence[int]] | None = None
    ) -> list[tuple[Array, ...]]:
        """Run rows as one batch, padded to the longest.

        Args:
            rows: at least one.
            outputs: names of graph outputs.
            positions: for a graph with `logits_positions`, which tokens of each row to compute logits for.

        Returns:
            for each row, its part of each output, float32; an output with an axis for tokens has the row's own length.

        Raises:
            TriformError: onnxruntime failed.
        """
        length = max(len(row.ids) for row in rows)
        shape = (len(rows), length)
        arrays = {
            "input_ids": np.full(shape, self._pad, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for index, row in enumerate(rows):
            size = len(row.ids)
            arrays["input_ids"][index, :size] = row.ids
            arrays["attention_mask"][index, :size] = 1
            arrays["token_type_ids"][index, :size] = row.type_ids
        if positions is not None:
            most = max(len(one) for one in positions)
            arrays["logits_positions"] = np.array([[*one, *[0] * (most - len(one))] for one in positions], np.int64)
        results = self.feed(arrays, outputs)
        return [
            tuple(self._own(name, result[index], len(row.ids)) for name, result in zip(outputs, results, strict=True))
            for index, row in enumerate(rows)
        ]

    def feed(self, arrays: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[Array]:
        """Run the graph on arrays by name; those it does not take are ignored.

        Raises:
            TriformError: onnxruntime failed.
        """
        try:
            found: list[Array] = self._session.run(list(outputs), {name: arrays[name] for name in self._inputs})
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise run_failure("encoder", error) from error
        return found

    def in_batches(self, rows: Iterable[Row], outputs: Sequence[str]) -> Iterator[tuple[Array, ...]]:
        """Run any number of rows, those of like length together, in bounded memory.

        Yields:
            what `run` returns for each row, in the order of `rows`.

        Raises:
            TriformError: onnxruntime failed.
        """
        source = iter(rows)
        while window := list(islice(source, WINDOW)):
            found: list[tuple[Array, ...]] = [()] * len(window)
            for batch in _batches(window):
                results = self.run([window[index] for index in batch], outputs)
                for index, result in zip(batch, results, strict=True):
                    # Views would keep the whole batch in memory.
                    found[index] = tuple(part.copy() for part in result)
            yield from found

    def _own(self, name: str, result: Array, length: int) -> Array:
        shape = self.outputs[name].shape
        return result[:length] if len(shape) > 1 and shape[1] == "sequence" else result


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indices of rows, longest first, in batches of at most TOKENS tokens with padding."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    start = 0
    while start < len(order):
        size = max(1, TOKENS // max(1, len(rows[order[start]].ids)))
        yield order[start : start + size]
        start += size
