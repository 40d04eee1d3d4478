"""One run of a decoder graph: token ids in, logits out, the cache a few tokens longer."""

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

# Tokens of a prompt fed at once: enough for full speed, few enough to keep activations and score matrices small.
CHUNK = 512
# Logits computed at once where every position's are wanted: 32 MB of float32.
_LOGITS = 2**23
# onnxruntime's products work on two rows at a time, and on an odd one by other code that rounds otherwise. Where
# activations are rounded to 8 bits such a difference grows to the size of that rounding.
_PAIR = 2


class DecoderStep:
    """Drives one session for one sequence at a time. Knows token ids only: no text, no sampling, no files.

    Attributes:
        cache: the sequence so far; `cache.reset()` starts another that shares nothing with it.
    """

    def __init__(self, session: BindableSession, manifest: Manifest, cache: CacheInfo) -> None:
        self._session = session
        self._vocab_size, self._max_length = manifest.vocab_size, manifest.max_length
        self.cache = KVCache(cache, manifest.max_length)
        # Noted before it is run; as many as the cache is long are what it holds, whoever trimmed it, whatever failed.
        self._fed: list[int] = []

    @property
    def ids(self) -> list[int]:
        """The token ids whose keys and values the cache holds."""
        del self._fed[int(self.cache.lengths[0]) :]
        return self._fed

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Make the sequence `ids`, at least one; those at its start that the cache holds already are not run again.

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
        """How many tokens `prefill(ids)` would not run; see `resumable`."""
        return resumable(self.ids, ids)

    def adopt(self, ids: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Make the sequence `ids`, of which the keys and values are known.

        Args:
            ids: at least one.
            arrays: as `KVCache.load` takes them.

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
        """Forget the last tokens."""
        self.cache.trim(count)

    def extend(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append a few tokens, in a run for which buffers are kept: always the same few numbers of them.

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
        """Arrays for a run of `count` tokens that gives the logits after each."""
        binding = StepBinding(self._session, (1, count), count, self._vocab_size)
        binding.logits_positions[0] = np.arange(count)
        return binding

    def logits_in_chunks(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Append `ids` and give the logits after each of them, a few positions at a time.

        Yields:
            float32 (positions, vocab_size), in order; together as many positions as there are ids.

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
    """How many of the first tokens of `ids` need not be run where those of `held` were.

    One at least is run, for its logits. A prompt is continued after an even number of tokens and by two at least, so
    that products pair the same tokens: what it gives is what reading all of it gives, bit by bit, wherever `held` was
    read as a prompt.
    """
    differ = (place for place, (known, one) in enumerate(zip(held, ids, strict=False)) if known != one)
    common = next(differ, min(len(held), len(ids)))
    return max(min(common, len(ids) - _PAIR) // _PAIR * _PAIR, 0)


def paired(rows: int) -> int:
    """Rows to run for so many: an idle one more where they are odd, so that none depends on how many there are."""
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
    """Append a chunk to the one row of `cache`; give the logits of these positions in it."""
    binding = StepBinding(session, (1, len(ids)), len(positions), vocab_size)
    binding.input_ids[0] = ids
    binding.past_lengths[:] = cache.lengths
    binding.logits_positions[0] = positions
    cache.bind(binding)
    run_step(session, binding)
    cache.advance(len(ids))
    result: NDArray[np.float32] = binding.logits[0]
    return result
