"""Runs decoders whose graphs take the keys and values so far, to verify and compare them; see `runners.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from triform.export.runners import Chunk, DecoderRunner, empty_cache, open_session_of, present_of, run_session
from triform.export.samples.batches import Array
from triform.runtime.bundle.manifest import CacheInfo


class ConcatenatedRunner:
    """A decoder graph that takes the keys and values so far and gives longer ones; methods as `DecoderRunner`.

    Each row has arrays of its own. Rows of different lengths are run together, with zeros before the shorter ones, if
    they are fed as many tokens, and one by one otherwise.

    Attributes:
        encoder_outputs: see `DecoderRunner`; the graph takes a source for each row.
        lengths: see `DecoderRunner`.
        extra_outputs: see `DecoderRunner`; there are none.
    """

    def __init__(self, path: Path, cache: CacheInfo, threads: int) -> None:
        self._session = open_session_of(path, threads)
        self._cache = cache
        self.encoder_outputs: dict[str, Array] = {}
        self.extra_outputs: list[str] = []
        self.start(1, 0)

    def start(self, batch: int, capacity: int) -> None:
        """See `DecoderRunner`."""
        self._rows = [empty_cache(self._cache, 1, 0) for _ in range(batch)]
        self.lengths: Array = np.zeros(batch, np.int32)

    def start_behind(self, length: int) -> None:
        """Begin a row after so many tokens, whose keys and values are 0."""
        self._rows = [empty_cache(self._cache, 1, length)]
        self.lengths = np.array([length], np.int32)

    def feed(self, input_ids: Array, positions: Array, lengths: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """See `DecoderRunner`."""
        chunk = Chunk(input_ids, positions, lengths)
        whole = bool((chunk.new_lengths == input_ids.shape[1]).all())
        apart = not whole or (not self._cache.uneven and len(set(self.lengths.tolist())) > 1)
        groups = [[row] for row in range(len(self._rows))] if apart else [list(range(len(self._rows)))]
        logits = []
        for rows in groups:
            count = int(chunk.new_lengths[rows].max())
            if self._cache.single:
                places = np.zeros((len(rows), 1), np.int64)
                columns = [self._feed(rows, input_ids[rows, place : place + 1], places) for place in range(count)]
                asked = positions[rows].astype(np.int64)
                logits.append(np.concatenate(columns, 1)[np.arange(len(rows))[:, None], asked])
            else:
                logits.append(self._feed(rows, input_ids[rows, :count], positions[rows]))
        return np.concatenate(logits), {}

    def _feed(self, rows: list[int], input_ids: Array, positions: Array) -> Array:
        longest = int(self.lengths[rows].max())
        past = {
            name: np.concatenate([
                np.pad(self._rows[row][name], ((0, 0), (0, 0), (longest - int(self.lengths[row]), 0), (0, 0)))
                for row in rows
            ])
            for name in self._rows[0]
        }  # fmt: skip
        feeds = Chunk(input_ids, positions).feeds(self.lengths[rows])
        del feeds["new_lengths"]
        outputs, count = self.encoder_outputs, len(self._rows)
        sources = {name: value[[row * len(value) // count for row in rows]] for name, value in outputs.items()}
        names = ["logits", *map(present_of, past)]
        logits, *presents = run_session(self._session, names, {**feeds, **sources, **past})
        for name, present in zip(past, presents, strict=True):
            for place, row in enumerate(rows):
                self._rows[row][name] = present[place : place + 1, :, longest - int(self.lengths[row]) :]
        self.lengths[rows] += input_ids.shape[1]
        return logits


def decoder_runner(path: Path, cache: CacheInfo, threads: int) -> DecoderRunner | ConcatenatedRunner:
    """The runner of a decoder's graph for the CPU. Arguments as `DecoderRunner`."""
    kind = ConcatenatedRunner if cache.growth == "concatenated" else DecoderRunner
    return kind(path, cache, threads)
