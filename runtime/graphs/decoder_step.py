"""Runs a decoder graph on token ids: returns logits and extends the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import not_numbers
from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.graphs.binding import StepBinding, run_step
from triform.runtime.graphs.cache import KVCache
from triform.runtime.graphs.protocols import BindableSession

# Tokens of a prompt to feed at once: enough for full speed, few enough to keep activations and score matrices small.
CHUNK = 512
# Logits to compute at once if every position is needed: 32 MB of float32.
_LOGITS = 2**23
# onnxruntime's products work on two rows at a time; other code, which rounds differently, handles an odd one. If
# activations are rounded to 8 bits, such a difference grows to the size of that rounding.
_PAIR = 2


class DecoderStep:
    """Drives one session for one sequence at a time. It handles token ids only: no text, no sampling, no files.

    Attributes:
        cache: the sequence so far; `cache.reset()` starts a new one.
    """

    def __init__(self, session: BindableSession, manifest: Manifest, cache: CacheInfo) -> None:
        self._session = session
        self._vocab_size, self._max_length = manifest.vocab_size, manifest.max_length
        self.cache = KVCache(cache, manifest.max_length)
        # Recorded before a run. The first ones, up to the cache's length, are in the cache, even if a run failed.
        self._fed: list[int] = []

    @property
    def ids(self) -> list[int]:
        """The token ids whose keys and values the cache holds."""
        del self._fed[int(self.cache.lengths[0]) :]
        return self._fed

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Set the sequence to `ids`, at least one; the prefix that the cache holds already is not run again.

        Returns:
            logits after the last one, float32 (vocab_size,); valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        kept = self.shared(ids)
        self.cache.trim(int(self.cache.lengths[0]) - kept)
        self.cache.reserve(len(ids))
        self._fed = list(ids)
        return prefill_row(self._session, self.cache, ids[kept:], self._vocab_size)

    def shared(self, ids: Sequence[int]) -> int:
        """Count the tokens that `prefill(ids)` would not run again; see `resumable`."""
        return resumable(self.ids, ids)

    def adopt(self, ids: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the sequence to `ids`, whose keys and values are known.

        Args:
            ids: at least one.
            arrays: see `KVCache.load`.

        Raises:
            InputError: the sequence is longer than the model's context.
        """
        self.cache.load(arrays, len(ids))
        self._fed = list(ids)

    def next(self, token: int) -> NDArray[np.float32]:
        """Append one token. Nothing is allocated unless the cache is full.

        Returns:
            logits after it, float32 (vocab_size,); valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        result: NDArray[np.float32] = self.extend((token,))[0]
        return result

    @property
    def room(self) -> int:
        """Tokens that still fit into the model's context."""
        return self._max_length - int(self.cache.lengths[0])

    def trim(self, count: int) -> None:
        """Remove the last tokens."""
        self.cache.trim(count)

    def extend(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append a few tokens. Buffers are kept for each number of tokens, so use only a few different numbers.

        Returns:
            logits after each, float32 (tokens, vocab_size); valid until the next call with as many.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        cache, count = self.cache, len(tokens)
        cache.reserve(int(cache.lengths[0]) + count)
        binding = cache.kept_binding(count, partial(self._binding, count))
        binding.input_ids[0] = tokens
        binding.past_lengths[:] = cache.lengths
        self.ids.extend(tokens)
        run_step(self._session, binding)
        cache.advance(count)
        result: NDArray[np.float32] = binding.logits[0]
        return result

    def _binding(self, count: int) -> StepBinding:
        """Arrays for a run of `count` tokens that outputs the logits after each."""
        binding = StepBinding(self._session, (1, count), count, self._vocab_size)
        binding.logits_positions[0] = np.arange(count)
        return binding

    def logits_in_chunks(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Append `ids` and compute the logits after each of them, a few positions at a time.

        Yields:
            float32 (positions, vocab_size), in order; as many positions in total as there are ids.

        Raises:
            InputError: the sequence outgrows the model's context.
            BundleError: a logit is NaN or an infinity.
            TriformError: onnxruntime failed.
        """
        self.cache.reserve(int(self.cache.lengths[0]) + len(ids))
        size = min(CHUNK, max(16, _LOGITS // self._vocab_size))
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            self.ids.extend(chunk)
            logits = _append(self._session, self.cache, chunk, np.arange(len(chunk)), self._vocab_size)
            if not np.isfinite(logits).all():
                raise not_numbers()
            yield logits


def resumable(held: Sequence[int], ids: Sequence[int]) -> int:
    """Count the first tokens of `ids` that need not be run again after those of `held` were run.

    At least one token is run, for its logits. A prompt is continued after an even number of tokens and by at least two,
    so that products pair the same tokens. If `held` was read as a prompt, the results are those of reading all of
    `ids`, bit for bit.
    """
    differ = (place for place, (old, new) in enumerate(zip(held, ids, strict=False)) if old != new)
    common = next(differ, min(len(held), len(ids)))
    return max(min(common, len(ids) - _PAIR) // _PAIR * _PAIR, 0)


def paired(rows: int) -> int:
    """Round a number of rows up to an even one, so that no row's result depends on how many others there are."""
    return -(-rows // _PAIR) * _PAIR


def prefill_row(session: BindableSession, cache: KVCache, ids: Sequence[int], vocab_size: int) -> NDArray[np.float32]:
    """Append `ids`, at least one, to the one row of `cache`, which has room for them.

    Returns:
        logits after the last one, float32 (vocab_size,).

    Raises:
        TriformError: onnxruntime failed.
    """
    logits = np.empty((0, vocab_size), np.float32)
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        logits = _append(session, cache, chunk, np.array([len(chunk) - 1]), vocab_size)
    result: NDArray[np.float32] = logits[-1]
    return result


def _append(
    session: BindableSession, cache: KVCache, ids: Sequence[int], positions: NDArray[Any], vocab_size: int
) -> NDArray[np.float32]:
    """Append a chunk to the one row of `cache`; return the logits at these positions in it."""
    binding = StepBinding(session, (1, len(ids)), len(positions), vocab_size)
    binding.input_ids[0] = ids
    binding.past_lengths[:] = cache.lengths
    binding.logits_positions[0] = positions
    cache.bind(binding)
    run_step(session, binding)
    cache.advance(len(ids))
    result: NDArray[np.float32] = binding.logits[0]
    return result
