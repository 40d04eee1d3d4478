"""One run of a decoder graph: token ids in, logits out, the cache a few tokens longer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.cache import KVCache
from triform.runtime.manifest import CacheInfo, Manifest
from triform.runtime.session import run_failure

# Tokens of a prompt fed at once: enough for full speed, few enough to keep activations and score matrices small.
CHUNK = 512
# Logits computed at once where every position's are wanted: 32 MB of float32.
_LOGITS = 2**23


class DecoderStep:
    """Drives one session for one sequence at a time. Knows token ids only: no text, no sampling, no files.

    Attributes:
        cache: the sequence so far; `cache.reset()` starts another.
    """

    def __init__(self, session: Any, manifest: Manifest, cache: CacheInfo) -> None:
        self._session = session
        self._vocab_size = manifest.vocab_size
        self.cache = KVCache(cache, manifest.max_length)
        self._single = _Binding(session, 1, 1, self._vocab_size)
        self._bound_capacity = 0

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Append `ids`, at least one, to the sequence.

        Returns:
            logits after the last one, float32 (vocab_size,); valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        self.cache.reserve(int(self.cache.lengths[0]) + len(ids))
        logits = self._single.logits
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            logits = self._append(chunk, np.array([[len(chunk) - 1]]))
        result: NDArray[np.float32] = logits[0, -1]
        return result

    def next(self, token: int) -> NDArray[np.float32]:
        """Append one token. Nothing is allocated unless the cache is full.

        Returns:
            logits after it, float32 (vocab_size,); valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        cache, binding = self.cache, self._single
        cache.reserve(int(cache.lengths[0]) + 1)
        if self._bound_capacity != cache.capacity:
            cache.bind(binding.io)
            self._bound_capacity = cache.capacity
        binding.input_ids[0, 0] = token
        binding.past_lengths[:] = cache.lengths
        _run(self._session, binding.io)
        cache.advance(1)
        result: NDArray[np.float32] = binding.logits[0, 0]
        return result

    def logits_in_chunks(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Append `ids` and give the logits after each of them, a few positions at a time.

        Yields:
            float32 (positions, vocab_size), in order; together as many positions as there are ids.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        self.cache.reserve(int(self.cache.lengths[0]) + len(ids))
        size = min(CHUNK, max(16, _LOGITS // self._vocab_size))
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            yield self._append(chunk, np.arange(len(chunk))[None])[0]

    def _append(self, ids: Sequence[int], positions: NDArray[Any]) -> NDArray[np.float32]:
        binding = _Binding(self._session, len(ids), positions.shape[1], self._vocab_size)
        binding.input_ids[0] = ids
        binding.past_lengths[:] = self.cache.lengths
        binding.logits_positions[:] = positions
        self.cache.bind(binding.io)
        _run(self._session, binding.io)
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


def _run(session: Any, io: Any) -> None:
    try:
        session.run_with_iobinding(io)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise run_failure("decoder", error) from error
