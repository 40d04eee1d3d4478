"""Runs a decoder graph for several sequences at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.errors import InputError
from triform.runtime.graphs.binding import StepArrays, memory_of
from triform.runtime.graphs.cache import KVCache, Snapshots, is_worth_a_snapshot, place_rows
from triform.runtime.graphs.decoding.prompts import PromptGraphs
from triform.runtime.graphs.decoding.step import paired, prefill_row, prefill_rows, read_row, resumable, run_on
from triform.runtime.graphs.protocols import BindableSession
from triform.runtime.likeliest import Likeliest, Scores, Table


class DecoderBatchStep:
    """The `OpenBatchStep` of a decoder bundle: steps run for all rows at once.

    On a device, prompts of similar length are read together. A processor is busy with a single one. The graph continues
    only a batch of one by several tokens, so a prompt that is not read from its beginning is read alone.

    A prompt that shares a prefix with another one whose keys and values are still in the cache is run from there; with
    states of fixed size, if two prompts before it shared the prefix.

    Attributes:
        cache: all sequences so far, in its own order: a row keeps its place as long as possible.
        wanted: see `DecoderStep`.
    """

    def __init__(
        self,
        session: BindableSession,
        manifest: Manifest,
        cache: CacheInfo,
        rows: int = 1,
        prompts: PromptGraphs | None = None,
    ) -> None:
        """Make a batch of no rows.

        Args:
            session: of the decoder graph.
            manifest: of the bundle.
            cache: the manifest's cache.
            rows: the number of rows to expect, so that no row moves when another joins; more are possible.
            prompts: what reads prompts; the session alone when None.
        """
        self._prompts = prompts or PromptGraphs()
        self._memory = memory_of(session, cache, manifest.vocab_size)
        self._vocab_size = manifest.vocab_size
        self.wanted: int | None = None
        self.cache = KVCache(cache, manifest.max_length, paired(rows), self._memory.buffers())
        self.cache.resize(0)
        # The place of each row in the cache.
        self._places = np.zeros(0, np.int64)
        # The tokens of the prompt in each place of the cache, even if its row was removed.
        self._read: list[list[int]] = []
        # Of short prompts, and of long ones.
        self._snapshots = Snapshots(), Snapshots()

    def prefill(self, rows: Sequence[Sequence[int]]) -> Table:
        """Start over with one row per prompt, each at least one token; lengths may differ.

        Returns:
            logits after each row's last token, float32 (len(rows), vocab_size), or the likeliest tokens.

        Raises:
            InputError: a prompt is longer than the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        self.select([])
        return self.join(rows)

    def join(self, rows: Sequence[Sequence[int]]) -> Table:
        """Append rows, each of at least one token.

        Returns:
            logits after each row's last token, float32 (len(rows), vocab_size), or the likeliest tokens.

        Raises:
            InputError: a prompt is longer than the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        self._make_room(max(map(len, rows), default=0), len(self._places) + len(rows))
        table: list[Scores] = []
        while len(table) < len(rows):
            waiting = rows[len(table) :]
            count = self._together(waiting)
            if count > 1:
                table.extend(self._read_together(waiting[:count]))
            else:
                scores = self._read_alone(waiting[0])
                # It is valid until the next run.
                table.append(scores if isinstance(scores, Likeliest) else scores.copy())
        likeliest = [scores for scores in table if isinstance(scores, Likeliest)]
        return likeliest or np.array(table, np.float32).reshape(len(rows), self._vocab_size)

    def select(self, parents: Sequence[int]) -> None:
        """Replace row i with the present row `parents[i]`, without running the model.

        Raises:
            InputError: the cache of so many rows does not fit into memory.
        """
        sources = self._places[np.asarray(parents, np.int64)]
        places = place_rows(sources)
        order = np.empty_like(sources)
        order[places] = sources
        self._make_room(0, len(order))
        self.cache.select(order)
        self._read[: len(order)] = [self._read[source] for source in order]
        self._places = places

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Table:
        """Replace row i with the present row `parents[i]` and append `tokens[i]`; at least one row.

        Returns:
            logits after each row's last token, float32 (len(tokens), vocab_size), or the likeliest tokens; valid until
            the next call.

        Raises:
            InputError: a sequence outgrows the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        self.select(parents)
        rows = len(self._places)
        self._make_room(int(self.cache.lengths.max()) + 1, paired(rows))
        # The graph writes a token into the idle row.
        self._read[rows : paired(rows)] = [[]] * (paired(rows) - rows)
        binding = self.cache.kept_binding(1, self._binding)
        binding.input_ids[self._places, 0] = tokens
        binding.past_lengths[:] = self.cache.lengths
        run_on(self._memory, binding, self.cache, 1)
        self.cache.resize(rows)
        scores = binding.scores(self.wanted)
        if not isinstance(scores, np.ndarray):
            return [scores[place][0] for place in self._places.tolist()]
        logits = scores[:rows, 0]
        in_order = (self._places == np.arange(rows)).all()
        return logits if in_order else logits[self._places]

    def _together(self, rows: Sequence[Sequence[int]]) -> int:
        """How many of the first prompts to read in one run: no more than half of it is padding, or could be copied."""
        if not self._memory.together:
            return 1
        longest = tokens = 0
        for count, ids in enumerate(rows, 1):
            shared = max([self._longest_shared(ids)[1], *(resumable(other, ids) for other in rows[: count - 1])])
            longest, tokens = max(longest, len(ids)), tokens + len(ids)
            if 2 * shared > len(ids) or count * longest > min(2 * tokens, self._memory.together):
                return count - 1
        return len(rows)

    def _read_together(self, rows: Sequence[Sequence[int]]) -> Iterable[Scores]:
        places = range(len(self._places), len(self._places) + len(rows))
        for place in places:
            self.cache.take(place, place, 0)
        scores = prefill_rows(self._memory, self.cache.rows(places.start, len(rows)), rows, self.wanted)
        self._read[places.start : places.stop] = [list(ids) for ids in rows]
        self._places = np.append(self._places, places)
        return scores

    def _read_alone(self, ids: Sequence[int]) -> Scores:
        place = len(self._places)
        source, shared = self._longest_shared(ids)
        if self.cache.has_states:
            scores = self._read_with_states(ids, place, source, shared)
        else:
            self.cache.take(place, source, shared)
            memory = self._prompts.memory(self._memory, len(ids))
            scores = prefill_row(memory, self.cache.row(place), ids[shared:], self.wanted)
        self._read[place] = list(ids)
        self._places = np.append(self._places, place)
        return scores

    def _read_with_states(self, ids: Sequence[int], place: int, source: int, shared: int) -> Scores:
        snapshots = self._snapshots[self._prompts.is_long(len(ids))]
        snapshot = snapshots.longest(ids, shared)
        kept = 0 if snapshot is None else len(snapshot.ids)
        self.cache.take(place, source, kept, None if snapshot is None else snapshot.states)
        # The next prompt may part from the others where this one does.
        places = [shared] if is_worth_a_snapshot(kept, shared) else []
        memory = self._prompts.memory(self._memory, len(ids))
        return read_row(memory, self.cache.row(place), ids, snapshots, places, self.wanted)

    def _make_room(self, length: int, rows: int) -> None:
        """Make room for at least `rows` rows of `length` tokens each. Removed rows are lost if the buffers grow."""
        layout = self.cache.layout[1:]
        try:
            self.cache.reserve(length)
            self.cache.resize(max(rows, len(self.cache.lengths)))
        except InputError:
            # The cache has dropped its buffers.
            self._read = [[]] * len(self._read)
            raise
        if self.cache.layout[1:] != layout:
            del self._read[len(self._places) :]
        self._read += [[]] * (self.cache.layout[1] - len(self._read))

    def _longest_shared(self, ids: Sequence[int]) -> tuple[int, int]:
        """The place with the longest common prefix, and its length; the new row's own place if it is as good."""
        shared = [0 if self._prompts.differ(len(held), len(ids)) else resumable(held, ids) for held in self._read]
        place = len(self._places)
        best = max(range(len(shared)), key=lambda candidate: (shared[candidate], candidate == place))
        return best, shared[best]

    def _binding(self) -> StepArrays:
        return self._memory.step((len(self.cache.lengths), 1), 1, repeated=True)
