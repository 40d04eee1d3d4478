"""Runs a decoder with hidden states: one sequence, and several continuations of it as rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.errors import UnsupportedError
from triform.runtime.graphs.binding import StepArrays, memory_of
from triform.runtime.graphs.cache import KVCache
from triform.runtime.graphs.decoding.step import CHUNK, paired, run_on
from triform.runtime.graphs.protocols import BindableSession
from triform.runtime.graphs.signature import LAST_HIDDEN_STATE, hidden_size_of

# Logits and hidden states.
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


class HiddenStep:
    """Reads a prompt, then repeatedly tries several next tokens, of which one is kept.

    Attributes:
        cache: a row for each token tried last: the sequence with that token.
    """

    def __init__(self, session: BindableSession, manifest: Manifest, cache: CacheInfo, rows: int) -> None:
        """Make an empty cache.

        Args:
            session: of the decoder graph.
            manifest: of the bundle.
            cache: the manifest's cache.
            rows: the most tokens that will be tried at a time.

        Raises:
            UnsupportedError: the graph does not output hidden states.
        """
        hidden_size = hidden_size_of(manifest)
        if hidden_size is None:
            raise UnsupportedError(
                "this bundle does not give hidden states: export the model with `ExportOptions.hidden_states`"
            )
        self._memory = memory_of(session, cache, manifest.vocab_size)
        self._sizes = manifest.vocab_size, hidden_size
        self.cache = KVCache(cache, manifest.max_length, paired(rows), self._memory.buffers())

    def prefill(self, ids: Sequence[int]) -> Outputs:
        """Start the sequence with `ids`, at least one.

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
            binding = self._binding((1, len(chunk)))
            binding.logits_positions[0] = len(chunk) - 1
            self.cache.bind(binding)
            self._append(binding, chunk[None])
            logits = binding.logits[0, 0]
            states[start : start + len(chunk)] = binding.outputs[LAST_HIDDEN_STATE][0]
        return logits, states

    def branch(self, tokens: Sequence[int] | NDArray[np.int64], row: int) -> Outputs:
        """Append each of these tokens to the present row `row`: the first makes row 0, the second row 1, and so on.

        Returns:
            logits after each token, float32 (len(tokens), vocab_size), and its hidden state, float32 (len(tokens),
            hidden_size); valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        count, rows = len(tokens), paired(len(tokens))
        self.cache.reserve(int(self.cache.lengths[row]) + 1)
        self.cache.select([row] * rows)
        binding = self.cache.kept_binding(1, partial(self._binding, (rows, 1), repeated=True))
        padded = np.zeros((rows, 1), np.int64)
        padded[:count, 0] = tokens
        self._append(binding, padded)
        return binding.logits[:count, 0], binding.outputs[LAST_HIDDEN_STATE][:count, 0]

    def _binding(self, shape: tuple[int, int], *, repeated: bool = False) -> StepArrays:
        """Arrays for a run that outputs the hidden states of all tokens, and logits after one token of each row."""
        binding = self._memory.step(shape, 1, repeated=repeated)
        binding.add_output(LAST_HIDDEN_STATE, (*shape, self._sizes[1]))
        return binding

    def _append(self, binding: StepArrays, input_ids: NDArray[np.int64]) -> None:
        binding.input_ids[:] = input_ids
        binding.past_lengths[:] = self.cache.lengths
        run_on(self._memory, binding, self.cache, input_ids.shape[1])
