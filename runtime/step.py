"""One run of a decoder graph: token ids in, logits out, the cache a few tokens longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.cache import KVCache
from triform.runtime.manifest import Manifest

# Tokens of a prompt fed at once: enough for full speed, few enough to keep activations and score matrices small.
CHUNK = 512


class DecoderStep:
    """Drives one session for one sequence at a time. Knows token ids only: no text, no sampling, no files."""

    def __init__(self, session: Any, manifest: Manifest) -> None:
        if manifest.cache is None:
            raise ValueError("a decoder's manifest has a cache")
        self._session = session
        self._vocab_size = manifest.vocab_size
        self.cache = KVCache(manifest.cache, manifest.max_length)
        self._single = _Binding(session, 1, 1, self._vocab_size)
        self._bound_capacity = 0

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Append `ids` to the sequence.

        Returns:
            logits after the last one, float32 (vocab_size,); valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
        """
        self.cache.reserve(int(self.cache.lengths[0]) + len(ids))
        logits = self._single.logits
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            logits = self._run(chunk, np.array([[len(chunk) - 1]]))
        result: NDArray[np.float32] = logits[0, -1]
        return result

    def next(self, token: int) -> NDArray[np.float32]:
        """Append one token. Nothing is allocated unless the cache is full.

        Returns:
            logits after it, float32 (vocab_size,); valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
        """
        cache, binding = self.cache, self._single
        cache.reserve(int(cache.lengths[0]) + 1)
        if self._bound_capacity != cache.capacity:
            cache.bind(binding.io)
            self._bound_capacity = cache.capacity
        binding.input_ids[0, 0] = token
        binding.past_lengths[:] = cache.lengths
        self._session.run_with_iobinding(binding.io)
        cache.advance(1)
        result: NDArray[np.float32] = binding.logits[0, 0]
        return result

    def all_logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Append `ids` and return the logits after each of them, float32 (len(ids), vocab_size)."""
        self.cache.reserve(int(self.cache.lengths[0]) + len(ids))
        result = np.empty((len(ids), self._vocab_size), np.float32)
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            result[start : start + len(chunk)] = self._run(chunk, np.arange(len(chunk))[None])[0]
        return result

    def _run(self, ids: Sequence[int], positions: NDArray[Any]) -> NDArray[np.float32]:
        binding = _Binding(self._session, len(ids), positions.shape[1], self._vocab_size)
        binding.input_ids[0] = ids
        binding.past_lengths[:] = self.cache.lengths
        binding.logits_positions[:] = positions
        self.cache.bind(binding.io)
        self._session.run_with_iobinding(binding.io)
        self.cache.advance(len(ids))
        return binding.logits


class _Binding:
    """Fixed numpy buffers behind a graph's inputs and logits: writing to them is all a step needs."""

    def __init__(self, session: Any, length: int, num_logits: int, vocab_size: int) -> None:
        from onnxruntime import OrtValue

        self.io = session.io_binding()
        self.input_ids = np.zeros((1, length), np.int64)
        self.past_lengths = np.zeros(1, np.int32)
        self.logits_positions = np.zeros((1, num_logits), np.int64)
        self.logits = np.empty((1, num_logits, vocab_size), np.float32)
        for name in ("input_ids", "past_lengths", "logits_positions"):
            self.io.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(getattr(self, name)))
        self.io.bind_ortvalue_output("logits", OrtValue.ortvalue_from_numpy(self.logits))
