"""A decoder graph that gives hidden states: one sequence, and several ways to continue it run as rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.errors import UnsupportedError
from triform.runtime.graphs.binding import StepBinding, run_step
from triform.runtime.graphs.cache import KVCache
from triform.runtime.graphs.decoder_step import CHUNK, paired
from triform.runtime.graphs.signature import LAST_HIDDEN_STATE, hidden_size_of

# Logits and hidden states.
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


class HiddenStep:
    """Reads a prompt, then tries several tokens behind it at a time, of which one stays.

    Attributes:
        cache: a row for each token that was tried last, of the sequence with that token.
    """

    def __init__(self, session: Any, manifest: Manifest, cache: CacheInfo, rows: int) -> None:
        """Make the cache, without any room.

        Args:
            session: onnxruntime.InferenceSession of the decoder graph.
            manifest: the bundle's.
            cache: the manifest's cache.
            rows: how many tokens will be tried at a time at most.

        Raises:
            UnsupportedError: the graph does not give hidden states.
        """
        hidden_size = hidden_size_of(manifest)
        if hidden_size is None:
            raise UnsupportedError("this bundle does not give hidden states: export the model with `ExportOptions.hidden_states`")
        self._session = session
        self._sizes = manifest.vocab_size, hidden_size
        self.cache = KVCache(cache, manifest.max_length, paired(rows))
        self._run: _Run | None = None
        self._bound: tuple[int, ...] = ()

    def prefill(self, ids: Sequence[int]) -> Outputs:
        """Make the sequence `ids`, at least one.

        Returns:
            logits after the last one, float32 (vocab_size,); hidden states of all, float32 (len(ids), hidden_size).

        Raises:
            InputError: the sequence outgrows the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        self.cache.reset()
        self.cache.reserve(len(ids))
        self.cache.resize(1)
        states = np.empty((len(ids), self._sizes[1]), np.float32)
        logits = np.empty(0, np.float32)
        for start in range(0, len(ids), CHUNK):
            chunk = np.asarray(ids[start : start + CHUNK])
            run = self._bind((1, len(chunk)))
            run.step.logits_positions[0] = len(chunk) - 1
            logits = self._append(run, chunk[None])[0][0]
            states[start : start + len(chunk)] = run.states[0]
        return logits, states

    def branch(self, tokens: Sequence[int] | NDArray[np.int64], row: int) -> Outputs:
        """Append each of these tokens to what row `row` is now: the first makes row 0, the second row 1, and so on.

        Returns:
            after each token, valid until the next call: logits, float32 (len(tokens), vocab_size); its hidden state,
            float32 (len(tokens), hidden_size).

        Raises:
            InputError: the sequence outgrows the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        rows = paired(len(tokens))
        self.cache.reserve(int(self.cache.lengths[row]) + 1)
        self.cache.select([row] * rows)
        if self._run is None or self._bound != self.cache.layout:
            self._run, self._bound = self._bind((rows, 1)), self.cache.layout
        padded = np.zeros((rows, 1), np.int64)
        padded[: len(tokens), 0] = tokens
        logits = self._append(self._run, padded)
        return logits[: len(tokens), 0], self._run.states[: len(tokens), 0]

    def _bind(self, shape: tuple[int, int]) -> _Run:
        run = _Run(self._session, shape, *self._sizes)
        self.cache.bind(run.step.io)
        return run

    def _append(self, run: _Run, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        run.step.input_ids[:] = input_ids
        run.step.past_lengths[:] = self.cache.lengths
        run_step(self._session, run.step)
        self.cache.advance(input_ids.shape[1])
        return run.step.logits


class _Run:
    """Buffers of one shape of input: those of a step, and the hidden states of all its tokens."""

    def __init__(self, session: Any, shape: tuple[int, int], vocab_size: int, hidden_size: int) -> None:
        from onnxruntime import OrtValue

        self.step = StepBinding(session, shape, 1, vocab_size)
        self.states = np.empty((*shape, hidden_size), np.float32)
        self.step.io.bind_ortvalue_output(LAST_HIDDEN_STATE, OrtValue.ortvalue_from_numpy(self.states))
