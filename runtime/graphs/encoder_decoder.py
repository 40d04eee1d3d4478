"""Runs the two graphs of an encoder-decoder: encodes sources, and computes logits of the generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.graphs.binding import DecoderMemory, StepArrays, memory_of, run_step
from triform.runtime.graphs.cache import KVCache
from triform.runtime.graphs.decoding.step import DecoderStep
from triform.runtime.graphs.encoder_output import EncoderOutput, SourceSession
from triform.runtime.graphs.padding import pad_rows
from triform.runtime.graphs.protocols import GraphSession
from triform.runtime.graphs.signature import CROSS_ATTENTIONS
from triform.runtime.likeliest import Table


class SourceReader:
    """Holds the sessions of an encoder and its decoder."""

    def __init__(self, encoder: GraphSession, decoder: GraphSession, manifest: Manifest, cache: CacheInfo) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._manifest = manifest
        self._cache = cache
        self._memory = memory_of(decoder, cache, manifest.vocab_size)
        self._taken = [node.name for node in encoder.get_inputs()]
        self._outputs = [node.name for node in encoder.get_outputs()]

    def read(self, arrays: Mapping[str, NDArray[Any]]) -> EncoderOutput:
        """Run the encoder on a batch of sources.

        Args:
            arrays: the encoder's inputs by name; others are ignored. The first axis is the source.

        Returns:
            the encoder's outputs.

        Raises:
            BundleError: an input of the encoder is missing.
            TriformError: onnxruntime failed.
        """
        return self._memory.encode(self._encoder, self._taken, self._outputs, arrays)

    @property
    def attends(self) -> bool:
        """Whether the decoder outputs its cross-attention; see `attend`."""
        return any(node.name == CROSS_ATTENTIONS for node in self._decoder.get_outputs())

    def attend(self, encoded: EncoderOutput, ids: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute the decoder's logits and cross-attention for one source and a given target.

        Args:
            encoded: from `read`, one source.
            ids: the whole target, at least one token.

        Returns:
            logits after each token, float32 (tokens, vocab_size), and the weights of the manifest's alignment heads,
            float32 (heads, tokens, source).

        Raises:
            InputError: there are more tokens than the model's context holds.
            TriformError: onnxruntime failed.
        """
        speech = self._manifest.encoder_decoder and self._manifest.encoder_decoder.speech
        heads = len(speech.alignment_heads) if speech else 0
        session = SourceSession(self._decoder, encoded)
        memory = self._memory.on(session)
        cache = KVCache(self._cache, self._manifest.max_length, 1, memory.buffers())
        cache.reserve(len(ids))
        binding = memory.step((1, len(ids)), len(ids))
        binding.input_ids[0] = ids
        binding.logits_positions[0] = np.arange(len(ids))
        binding.add_output(CROSS_ATTENTIONS, (1, heads, len(ids), encoded.length))
        cache.bind(binding)
        run_step(session, binding)
        return binding.logits[0], binding.outputs[CROSS_ATTENTIONS][0]

    def step(self, encoded: EncoderOutput) -> DecoderStep:
        """Return a step that decodes from one source, token by token."""
        session = SourceSession(self._decoder, encoded)
        return DecoderStep(session, self._manifest, self._cache, self._memory.on(session))

    def batch_step(self, encoded: EncoderOutput) -> SourceBatchStep:
        """Return a step that decodes from all sources, with any number of rows for each."""
        session = SourceSession(self._decoder, encoded)
        return SourceBatchStep(session, self._memory.on(session), self._manifest, self._cache)


class SourceBatchStep:
    """The `BatchStep` of an encoder-decoder: it begins with one row per source, and each row descends from one of them.

    The graph needs the same number of rows for every source, side by side. Unused rows pad sources with fewer beams; a
    source without rows is kept until half of the sources have none.

    Attributes:
        wanted: how many of the likeliest tokens suffice in place of all logits; None if all logits are needed.
    """

    def __init__(self, session: SourceSession, memory: DecoderMemory, manifest: Manifest, cache: CacheInfo) -> None:
        self._session, self._memory = session, memory
        self.wanted: int | None = None
        self.cache = KVCache(cache, manifest.max_length, 1, self._memory.buffers())
        # For each row in use: its place in the cache, and its source.
        self._places = np.zeros(0, np.int64)
        self._sources = np.zeros(0, np.int64)
        self._slots = 0

    def prefill(self, rows: Sequence[Sequence[int]]) -> Table:
        """Begin with one row per source, in the sources' order, each at least one token; lengths may differ.

        Returns:
            logits after each row's last token, float32 (len(rows), vocab_size), or the likeliest tokens.

        Raises:
            InputError: a row is longer than the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        scores = self._begin(rows, np.array([[len(ids) - 1] for ids in rows])).scores(self.wanted)
        return scores[:, 0] if isinstance(scores, np.ndarray) else [row[0] for row in scores]

    def prefill_at(self, rows: Sequence[Sequence[int]], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Like `prefill`, but with the logits after chosen tokens instead of each row's last.

        Args:
            rows: see `prefill`.
            positions: of the chosen tokens in their row, int64 (len(rows), num_logits).

        Returns:
            float32 (len(rows), num_logits, vocab_size).
        """
        return self._begin(rows, positions).logits

    def _begin(self, rows: Sequence[Sequence[int]], positions: NDArray[np.int64]) -> StepArrays:
        lengths = np.array([len(ids) for ids in rows])
        self.cache.reset()
        self.cache.resize(len(rows))
        self.cache.reserve(int(lengths.max()))
        shape = (len(rows), int(lengths.max()))
        binding = self._memory.step(shape, positions.shape[1])
        binding.input_ids[:] = pad_rows(rows)
        binding.logits_positions[:] = positions
        self.cache.bind(binding)
        run_step(self._session, binding)
        self.cache.advance(lengths)
        self._places = self._sources = np.arange(len(rows))
        self._slots = len(rows)
        return binding

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Table:
        """Replace row i with the present row `parents[i]` and append `tokens[i]`; rows of a source are adjacent.

        Returns:
            logits after each row's last token, float32 (len(tokens), vocab_size), or the likeliest tokens; valid until
            the next call.

        Raises:
            InputError: a sequence outgrows the model's context, or the cache does not fit into memory.
            TriformError: onnxruntime failed.
        """
        self._arrange(np.asarray(parents, np.int64))
        self.cache.reserve(int(self.cache.lengths.max()) + 1)
        binding = self.cache.kept_binding(1, self._binding)
        binding.input_ids[self._places, 0] = tokens
        binding.past_lengths[:] = self.cache.lengths
        run_step(self._session, binding)
        self.cache.advance(1)
        scores = binding.scores(self.wanted)
        if not isinstance(scores, np.ndarray):
            return [scores[place][0] for place in self._places.tolist()]
        logits = scores[:, 0]
        return logits if len(self._places) == len(logits) else logits[self._places]

    def _arrange(self, parents: NDArray[np.int64]) -> None:
        """Give every row its place: the rows of a source side by side, the same number for each source."""
        sources, former = self._sources[parents], self._places[parents]
        live = np.unique(sources)
        if 2 * len(live) <= self._slots:
            self._session.keep(live.tolist())
            sources, self._slots = np.searchsorted(live, sources), len(live)
            # The bindings hold the removed sources.
            self.cache.forget_bindings()
        # The number of each row among the rows of its source.
        first = np.searchsorted(sources, sources, side="left")
        places = np.arange(len(sources)) - first
        width = int(places.max()) + 1
        places += sources * width
        # Unused rows continue any row: the first.
        chosen = np.full(self._slots * width, former[0])
        chosen[places] = former
        self.cache.select(chosen)
        self._places, self._sources = places, sources

    def _binding(self) -> StepArrays:
        return self._memory.step((len(self.cache.lengths), 1), 1)
