"""A decoder graph run for several sequences at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.cache import KVCache, settle
from triform.runtime.manifest import CacheInfo, Manifest
from triform.runtime.step import StepBinding, prefill_row, run_step

# onnxruntime's products work on two rows at a time, and on an odd one by other code that rounds otherwise. Where
# activations are rounded to 8 bits such a difference grows to the size of that rounding, so odd batches get an idle
# row: what a row gives then does not depend on how many others there are.
_MULTIPLE = 2


class DecoderBatchStep:
    """The `OpenBatchStep` of a decoder bundle: prompts are read one row at a time, steps run for all rows at once.

    Prompts are not read together because they differ in length and the graph continues only a batch of one by several
    tokens; a prompt alone already keeps the processor busy.

    Attributes:
        cache: all sequences so far, in an order of its own: a row stays where it is as long as it can.
    """

    def __init__(self, session: Any, manifest: Manifest, cache: CacheInfo, rows: int = 1) -> None:
        """Make a batch of no rows.

        Args:
            session: onnxruntime.InferenceSession of the decoder graph.
            manifest: the bundle's.
            cache: the manifest's cache.
            rows: how many rows to expect at most, so that no row moves when another joins; more may come.
        """
        self._session = session
        self._vocab_size = manifest.vocab_size
        self.cache = KVCache(cache, manifest.max_length, _padded(rows))
        self.cache.resize(0)
        # Where in the cache each row is.
        self._places = np.zeros(0, np.int64)
        self._binding: StepBinding | None = None
        self._bound: tuple[int, ...] = ()

    def prefill(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Begin anew with one row a prompt, each at least one token; lengths may differ.

        Returns:
            logits after each row's last token, float32 (len(rows), vocab_size).

        Raises:
            InputError: a prompt is longer than the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        self.select([])
        self.cache.reserve(max(map(len, rows), default=0))
        logits = np.empty((len(rows), self._vocab_size), np.float32)
        for index, ids in enumerate(rows):
            logits[index] = self.join(ids)
        return logits

    def join(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Add a row of at least one token behind the others.

        Returns:
            logits after its last token, float32 (vocab_size,).

        Raises:
            InputError: the prompt is longer than the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        place = len(self._places)
        self.cache.reserve(len(ids))
        self.cache.resize(place + 1)
        logits = prefill_row(self._session, self.cache.row(place), ids, self._vocab_size)
        self._places = np.append(self._places, place)
        return logits

    def select(self, parents: Sequence[int]) -> None:
        """Make row i what row `parents[i]` is now, without running the model.

        Raises:
            InputError: the cache of so many rows does not fit into memory.
        """
        sources = self._places[np.asarray(parents, np.int64)]
        places = settle(sources)
        order = np.empty_like(sources)
        order[places] = sources
        self.cache.select(order)
        self._places = places

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        """Make row i what row `parents[i]` is now with `tokens[i]` appended; at least one row.

        Returns:
            logits after each row's last token, float32 (len(tokens), vocab_size); valid until the next call.

        Raises:
            InputError: a sequence outgrows the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        self.select(parents)
        rows = len(self._places)
        self.cache.reserve(int(self.cache.lengths.max()) + 1)
        self.cache.resize(_padded(rows))
        binding = self._bind()
        binding.input_ids[self._places, 0] = tokens
        binding.past_lengths[:] = self.cache.lengths
        run_step(self._session, binding)
        self.cache.advance(1)
        self.cache.resize(rows)
        logits = binding.logits[:rows, 0]
        in_order = (self._places == np.arange(rows)).all()
        return logits if in_order else logits[self._places]

    def _bind(self) -> StepBinding:
        if self._binding is None or self._bound != self.cache.layout:
            self._binding = StepBinding(self._session, (len(self.cache.lengths), 1), 1, self._vocab_size)
            self.cache.bind(self._binding.io)
            self._bound = self.cache.layout
        return self._binding


def _padded(rows: int) -> int:
    return -(-rows // _MULTIPLE) * _MULTIPLE
