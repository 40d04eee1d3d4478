"""Runs a decoder graph on token ids: returns logits and extends the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import not_numbers
from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.graphs.binding import DecoderMemory, StepArrays, memory_of, run_step
from triform.runtime.graphs.buffers.contract import States
from triform.runtime.graphs.cache import KVCache, Snapshots, is_worth_a_snapshot
from triform.runtime.graphs.decoding.prompts import PromptGraphs
from triform.runtime.graphs.protocols import BindableSession
from triform.runtime.likeliest import Scores, Table

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
        wanted: how many of the likeliest tokens suffice in place of all logits; None if all logits are needed.
    """

    def __init__(
        self,
        session: BindableSession,
        manifest: Manifest,
        cache: CacheInfo,
        memory: DecoderMemory | None = None,
        prompts: PromptGraphs | None = None,
    ) -> None:
        """Begin with no tokens.

        Args:
            session: of the decoder graph.
            manifest: of the bundle.
            cache: the manifest's cache.
            memory: where the cache lives; that of the session when None.
            prompts: what reads prompts; the session alone when None.
        """
        self._prompts = prompts or PromptGraphs()
        self._memory = memory_of(session, cache, manifest.vocab_size) if memory is None else memory
        self._vocab_size, self._max_length = manifest.vocab_size, manifest.max_length
        self.cache = KVCache(cache, manifest.max_length, 1, self._memory.buffers())
        self.wanted: int | None = None
        # Recorded before a run. The first ones, up to the cache's length, are in the cache, even if a run failed.
        self._fed: list[int] = []
        # The length of the last prompt.
        self._read = 0
        self._snapshots = Snapshots()

    @property
    def copied_bytes(self) -> int | None:
        """See `DecoderMemory`."""
        return self._memory.copied_bytes

    @property
    def ids(self) -> list[int]:
        """The token ids that the cache holds."""
        del self._fed[int(self.cache.lengths[0]) :]
        return self._fed

    def reset(self) -> None:
        """Forget every token."""
        self.cache.reset()
        self._snapshots = Snapshots()

    def prefill(self, ids: Sequence[int]) -> Scores:
        """Set the sequence to `ids`, at least one; the prefix that the cache holds already is not run again.

        Returns:
            logits after the last one, float32 (vocab_size,), or the likeliest tokens; valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        memory = self._prompts.memory(self._memory, len(ids))
        if self._prompts.differ(self._read, len(ids)):
            self.reset()
        self._read = len(ids)
        if self.cache.has_states:
            return self._prefill_with_states(memory, ids)
        kept = self.shared(ids)
        self.cache.trim(int(self.cache.lengths[0]) - kept)
        self.cache.reserve(len(ids))
        self._fed = list(ids)
        return prefill_row(memory, self.cache, ids[kept:], self.wanted)

    def shared(self, ids: Sequence[int]) -> int:
        """Count the tokens that `prefill(ids)` would not run again; see `resumable`.

        With states of fixed size these are all that the cache holds, if `ids` continue them, or else those before a
        snapshot. What another graph read is run again.
        """
        if self._prompts.differ(self._read, len(ids)):
            return 0
        return self._resumption(ids)[0] if self.cache.has_states else resumable(self.ids, ids)

    def _resumption(self, ids: Sequence[int]) -> tuple[int, States | None]:
        """How many tokens need not be run again, and the states after them; None for those in the cache."""
        held = self.ids
        if len(held) < len(ids) and list(ids[: len(held)]) == held:
            return len(held), None
        snapshot = self._snapshots.longest(ids, resumable(held, ids))
        return (0, None) if snapshot is None else (len(snapshot.ids), snapshot.states)

    def _prefill_with_states(self, memory: DecoderMemory, ids: Sequence[int]) -> Scores:
        (kept, states), parted = self._resumption(ids), resumable(self.ids, ids)
        self.cache.reserve(len(ids))
        if states is not None or not kept:
            self.cache.rewind(0, kept, states)
        self._fed = list(ids)
        # The next prompt may part where this one parted from the one before, or be the same again.
        places = [parted] if is_worth_a_snapshot(kept, parted) else []
        last = resumable(ids, ids)
        if last > max([kept, *places]):
            places.append(last)
        logits = read_row(memory, self.cache, ids, self._snapshots, places, self.wanted)
        if not last:
            self._snapshots.keep(ids, self.cache.states_of(0))
        return logits

    def stored(self, most: int) -> tuple[list[int], dict[str, NDArray[np.float32]]]:
        """What can be kept of the sequence for `adopt`: of its first `most` tokens, or fewer with states of fixed size.

        Returns:
            the tokens, none if there is nothing to keep, and arrays by name, see `KVCache.load`.
        """
        ids = self.ids[:most]
        if not self.cache.has_states:
            return ids, self.cache.stored(len(ids))
        snapshot = self._snapshots.longest(ids, len(ids))
        if snapshot is None:
            return [], {}
        return ids[: len(snapshot.ids)], {**self.cache.stored(len(snapshot.ids)), **snapshot.states}

    def adopt(self, ids: Sequence[int], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the sequence to `ids`, of which everything is known that the cache holds.

        Args:
            ids: at least one.
            arrays: see `KVCache.load`.

        Raises:
            InputError: the sequence is longer than the model's context.
        """
        self.cache.load(arrays, len(ids))
        self._fed, self._read = list(ids), len(ids)
        if self.cache.has_states:
            self._snapshots.keep(ids, self.cache.states_of(0))

    def next(self, token: int) -> Scores:
        """Append one token. Nothing is allocated unless the cache is full.

        Returns:
            logits after it, float32 (vocab_size,), or the likeliest tokens; valid until the next call.

        Raises:
            InputError: the sequence outgrows the model's context.
            TriformError: onnxruntime failed.
        """
        return self.extend((token,))[0]

    @property
    def room(self) -> int:
        """Tokens that still fit into the model's context."""
        return self._max_length - int(self.cache.lengths[0])

    def trim(self, count: int) -> None:
        """Remove the last tokens."""
        self.cache.trim(count)

    def extend(self, tokens: Sequence[int]) -> Table:
        """Append a few tokens. Buffers are kept for each number of tokens, so use only a few different numbers.

        Returns:
            logits after each, float32 (tokens, vocab_size), or the likeliest tokens; valid until the next call with as
            many.

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
        run_on(self._memory, binding, cache, count)
        return binding.scores(self.wanted)[0]

    def _binding(self, count: int) -> StepArrays:
        """Arrays for a run of `count` tokens that outputs the logits after each."""
        binding = self._memory.step((1, count), count, repeated=True)
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
            logits = _append(self._memory, self.cache, chunk, np.arange(len(chunk))).logits[0]
            if not np.isfinite(logits).all():
                raise not_numbers()
            yield logits


def read_row(
    memory: DecoderMemory,
    cache: KVCache,
    ids: Sequence[int],
    snapshots: Snapshots,
    places: Iterable[int],
    wanted: int | None,
) -> Scores:
    """Append those of `ids` that the one row of `cache` does not hold, with snapshots of its states on the way.

    Args:
        memory: of the decoder.
        cache: has room for them.
        ids: the whole row.
        snapshots: keeps the states.
        places: lengths to keep the states at, in order, beyond what the cache holds and below all.
        wanted: see `DecoderStep`.

    Returns:
        logits after the last one, float32 (vocab_size,), or the likeliest tokens.

    Raises:
        TriformError: onnxruntime failed.
    """
    for place in places:
        prefill_row(memory, cache, ids[int(cache.lengths[0]) : place], 1)
        snapshots.keep(ids[:place], cache.states_of(0))
    return prefill_row(memory, cache, ids[int(cache.lengths[0]) :], wanted)


def run_on(memory: DecoderMemory, binding: StepArrays, cache: KVCache, count: int | NDArray[np.int64]) -> None:
    """Run the decoder graph and record that it has written `count` tokens to each row, or so many to each.

    Raises:
        TriformError: onnxruntime failed. Keys and values of earlier tokens are unharmed, states of fixed size are not:
            with those the cache is empty.
    """
    try:
        run_step(memory.session, binding)
        cache.advance(count)
    except BaseException:
        if cache.has_states:
            cache.reset()
        raise


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


def prefill_row(memory: DecoderMemory, cache: KVCache, ids: Sequence[int], wanted: int | None) -> Scores:
    """Append `ids`, at least one, to the one row of `cache`, which has room for them.

    Args:
        memory: of the decoder.
        cache: of one row.
        ids: see above.
        wanted: see `DecoderStep`.

    Returns:
        logits after the last one, float32 (vocab_size,), or the likeliest tokens.

    Raises:
        TriformError: onnxruntime failed.
    """
    for start in range(0, len(ids), memory.chunk):
        chunk = ids[start : start + memory.chunk]
        step = _append(memory, cache, chunk, np.array([len(chunk) - 1]))
    return step.scores(wanted)[0][-1]


def prefill_rows(
    memory: DecoderMemory, cache: KVCache, rows: Sequence[Sequence[int]], wanted: int | None
) -> Iterable[Scores]:
    """Read a prompt into each row of an empty `cache`, which has room for them, in one run; shorter ones are padded.

    What the graph computes of padding lies behind a row's tokens, where later ones are written.

    Args:
        memory: of the decoder.
        cache: of as many rows as there are prompts.
        rows: at least one token each.
        wanted: see `DecoderStep`.

    Returns:
        logits after each row's last token, float32 (vocab_size,), or the likeliest tokens.

    Raises:
        TriformError: onnxruntime failed.
    """
    lengths = np.array([len(ids) for ids in rows])
    step = memory.step((len(rows), int(lengths.max())), 1)
    for ids, padded in zip(rows, step.input_ids, strict=True):
        padded[: len(ids)] = ids
    step.new_lengths[:] = lengths
    step.logits_positions[:, 0] = lengths - 1
    cache.bind(step)
    run_on(memory, step, cache, lengths)
    return [row[0] for row in step.scores(wanted)]


def _append(memory: DecoderMemory, cache: KVCache, ids: Sequence[int], positions: NDArray[Any]) -> StepArrays:
    """Append a chunk to the one row of `cache`, and compute logits at these positions in it."""
    step = memory.step((1, len(ids)), len(positions))
    step.input_ids[0] = ids
    step.past_lengths[:] = cache.lengths
    step.logits_positions[0] = positions
    cache.bind(step)
    run_on(memory, step, cache, len(ids))
    return step
