"""Running a decoder graph over token ids, for measuring it.

The runtime's own loop is not used on purpose: what verifies a graph should not share its mistakes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from triform.export.samples.batches import Array
from triform.runtime.bundle.manifest import LayerCacheInfo


class GraphRunner:
    """A decoder graph with growing past arrays, fed and read through plain numpy.

    Attributes:
        given: further inputs, by name, the same at each run: what an encoder gave.
    """

    def __init__(self, path: Path, layers: Sequence[LayerCacheInfo], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._layers = layers
        self.given: dict[str, Array] = {}
        self.extra_outputs = [
            output.name for output in self._session.get_outputs() if not output.name.startswith(("logits", "present."))
        ]
        self.start(1, 0)

    def start(self, batch: int, capacity: int) -> None:
        """Begin anew with empty caches for `batch` rows of at most `capacity` tokens."""
        self._past = {}
        for index, layer in enumerate(self._layers):
            for part in ("key", "value"):
                shape = (batch, layer.num_key_value_heads, capacity, layer.head_dim)
                self._past[f"past_key_values.{index}.{part}"] = np.zeros(shape, np.float32)
        self.lengths = np.zeros(batch, np.int32)

    def feed(self, input_ids: Array, positions: Array, lengths: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """Run one chunk.

        Args:
            input_ids: int64 (batch, sequence).
            positions: int64 (batch, num_logits), which positions of the chunk to return logits for.
            lengths: int32 (batch,), real tokens of each row in the chunk; all of them when None.

        Returns:
            logits float32 (batch, num_logits, vocab_size), and the graph's outputs beyond the cache.
        """
        feeds = {
            "input_ids": input_ids.astype(np.int64),
            "past_lengths": self.lengths,
            "logits_positions": positions.astype(np.int64),
            **self._past,
            **self.given,
        }
        presents = [name.replace("past_key_values", "present") for name in self._past]
        names = ["logits", *self.extra_outputs, *presents]
        results = dict(zip(names, self._session.run(names, feeds), strict=True))
        self._past = {name.replace("present", "past_key_values"): results.pop(name) for name in presents}
        self.lengths = self.lengths + np.asarray(input_ids.shape[1] if lengths is None else lengths, np.int32)
        return results.pop("logits"), results


def usable_cores() -> int:
    """Cores, hyperthreads counted, that the operating system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PairRunner:
    """The graphs of one folder. What verifies a graph does not share the runtime's code."""

    def __init__(self, encoder: Path, decoder: Path, layers: list[LayerCacheInfo], threads: int) -> None:
        self.encoder = EncoderRunner(encoder, threads)
        self.decoder = GraphRunner(decoder, layers, threads)

    def read(self, arrays: Mapping[str, Array]) -> GraphRunner:
        """The decoder, about to answer to what `arrays` are: one source, or several of one batch."""
        found = self.encoder.run(arrays)
        self.decoder.given = {name: value for name, value in found.items() if not name.startswith("activation.")}
        return self.decoder


def answer(decoder: GraphRunner, start: int, count: int) -> list[int]:
    """The first tokens of the likeliest answer, the one decoding starts with included; goes on past its end."""
    decoder.start(1, count)
    ids = [start]
    while len(ids) < count:
        logits, _ = decoder.feed(np.array([ids[-1:]]), np.zeros((1, 1)))
        ids.append(int(logits[0, 0].argmax()))
    return ids


class EncoderRunner:
    """An encoder graph fed and read through plain numpy. What verifies a graph does not share the runtime's code."""

    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]
        # Those with an axis for tokens, of which a padded row has too many.
        self.ragged = {output.name for output in self._session.get_outputs() if output.shape[1:2] == ["sequence"]}

    def run(self, arrays: Mapping[str, Array], names: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs called `names`, by name; every one when none is named."""
        wanted = list(names) or self.outputs
        found = self._session.run(wanted, dict(arrays))
        return dict(zip(wanted, found, strict=True))
