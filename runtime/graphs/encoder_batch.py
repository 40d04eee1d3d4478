"""Runs an encoder graph over one batch, or over any number of rows in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.manifest import GraphInfo
from triform.runtime.graphs.encoder_output import run_encoder
from triform.runtime.graphs.padding import pad_boxes, pad_rows, text_arrays
from triform.runtime.graphs.protocols import GraphSession
from triform.runtime.text.rows import RowIds, TokenBatch, TokenRow

# The providers that compute on a GPU.
_ON_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
# Rows read ahead, to batch those of similar length.
WINDOW = 4096


@dataclass(frozen=True)
class BatchSize:
    """How much runs at once.

    Attributes:
        tokens: in a batch of texts, including padding.
        images: in a batch of images, whose activations are all in memory at once.
        texts: to tokenize at a time.
    """

    tokens: int
    images: int
    texts: int


# Enough to keep every core busy, few enough to stay in its cache.
CPU_BATCH = BatchSize(tokens=1024, images=8, texts=1024)
# An H200 embeds 141,000 texts of 32 tokens a second in batches of 16,384 tokens, and 52,000 in batches of 2,048.
GPU_BATCH = BatchSize(tokens=16384, images=64, texts=4096)


def batch_size(session: GraphSession) -> BatchSize:
    """The size of batches for the device that a session runs on."""
    return GPU_BATCH if session.get_providers()[0] in _ON_GPU else CPU_BATCH


class EncoderStep:
    """Drives one encoder session. It handles token ids and arrays only: no text, no files.

    Attributes:
        inputs: names of the graph's inputs.
        outputs: the manifest's entry for each output, by name.
        size: of batches.
    """

    def __init__(
        self,
        session: GraphSession,
        graph: GraphInfo,
        pad: int | None,
        *,
        equal_lengths: bool = False,
        size: BatchSize = CPU_BATCH,
    ) -> None:
        """Keep a session.

        Args:
            session: of the encoder graph.
            graph: its entry in the manifest.
            pad: id of the padding token; 0 when None.
            equal_lengths: whether all rows of a run must have the same number of tokens.
            size: of batches.
        """
        self.size = size
        self._session = session
        self._equal_lengths = equal_lengths
        self.inputs = [info.name for info in graph.inputs]
        self._pad = pad
        self.outputs = {info.name: info for info in graph.outputs}

    def run(
        self, rows: Sequence[TokenRow], outputs: Sequence[str], positions: Sequence[Sequence[int]] | None = None
    ) -> list[tuple[Array, ...]]:
        """Run rows as one batch, padded to the longest, or as one batch per length if the model must not see padding.

        Args:
            rows: at least one.
            outputs: names of graph outputs.
            positions: for a graph with `logits_positions`, the tokens of each row to compute logits for.

        Returns:
            for each row, its part of each output, float32; an output with a token axis has the row's own length.

        Raises:
            TriformError: onnxruntime failed.
        """
        lengths = {len(row.ids) for row in rows}
        if self._equal_lengths and len(lengths) > 1:
            return self._run_by_length(rows, outputs, positions)
        arrays: dict[str, NDArray[Any]] = {
            **text_arrays([row.ids for row in rows], self._pad),
            "token_type_ids": pad_rows([row.type_ids for row in rows]),
            "prompt_lengths": np.array([row.prompt_length for row in rows], np.int64),
        }
        boxes = [row.boxes for row in rows if row.boxes is not None]
        if boxes:
            arrays["bbox"] = pad_boxes(boxes)
        if positions is not None:
            arrays["logits_positions"] = pad_rows(positions)
        results = self.feed(arrays, outputs)
        return [
            tuple(self._own(name, result[index], len(row.ids)) for name, result in zip(outputs, results, strict=True))
            for index, row in enumerate(rows)
        ]

    def _run_by_length(
        self, rows: Sequence[TokenRow], outputs: Sequence[str], positions: Sequence[Sequence[int]] | None
    ) -> list[tuple[Array, ...]]:
        parts: list[tuple[Array, ...]] = [()] * len(rows)
        for length in {len(row.ids) for row in rows}:
            chosen = [index for index, row in enumerate(rows) if len(row.ids) == length]
            own = None if positions is None else [positions[index] for index in chosen]
            for index, result in zip(chosen, self.run([rows[index] for index in chosen], outputs, own), strict=True):
                parts[index] = result
        return parts

    def feed(self, arrays: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[Array]:
        """Run the graph on arrays by name; arrays that the graph does not take are ignored.

        Raises:
            BundleError: an array that the graph takes is missing.
            TriformError: onnxruntime failed.
        """
        return run_encoder(self._session, self.inputs, outputs, arrays)

    def in_batches(self, rows: Iterable[TokenRow], outputs: Sequence[str]) -> Iterator[tuple[Array, ...]]:
        """Run any number of rows in bounded memory; rows of similar length run together.

        Yields:
            the result of `run` for each row, in the order of `rows`.

        Raises:
            TriformError: onnxruntime failed.
        """
        source = iter(rows)
        while window := list(islice(source, WINDOW)):
            parts: list[tuple[Array, ...]] = [()] * len(window)
            lengths = np.array([len(row.ids) for row in window])
            for batch in map(np.ndarray.tolist, self._batches(lengths)):
                results = self.run([window[index] for index in batch], outputs)
                for index, result in zip(batch, results, strict=True):
                    # Views would keep the whole batch in memory.
                    parts[index] = tuple(part.copy() for part in result)
            yield from parts

    def vectors(self, texts: TokenBatch, output: str, prompt_length: int = 0) -> Array:
        """Run texts in batches, for an output with one vector each.

        Args:
            texts: any number; texts of similar length run together.
            output: name of the graph's output.
            prompt_length: number of tokens at the start that pooling leaves out, for graphs with such an input.

        Returns:
            float32 (texts, width), zeros for a text without tokens.

        Raises:
            TriformError: onnxruntime failed.
        """
        width = self.outputs[output].shape[-1]
        result = np.zeros((len(texts.lengths), int(width)), np.float32)
        present = np.flatnonzero(texts.lengths)
        for batch in self._batches(texts.lengths[present]):
            chosen = present[batch]
            arrays = texts.padded(chosen, self._pad or 0)
            arrays["prompt_lengths"] = np.full(len(chosen), prompt_length, np.int64)
            (result[chosen],) = self.feed(arrays, [output])
        return result

    def _own(self, name: str, result: Array, length: int) -> Array:
        shape = self.outputs[name].shape
        return result[:length] if len(shape) > 1 and shape[1] == "sequence" else result

    def _batches(self, lengths: RowIds) -> Iterator[RowIds]:
        """Indices of rows, longest first, in batches of a limited size, padding included.

        The rows of a batch have the same length if they must.
        """
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            length = lengths[order[start]]
            batch = order[start : start + max(1, self.size.tokens // max(1, int(length)))]
            if self._equal_lengths:
                batch = batch[lengths[batch] == length]
            yield batch
            start += len(batch)
