"""The `DecoderMemory` of a decoder whose graph concatenates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.graphs.concatenated.buffers import ConcatenatedBuffers, WorkingArrays
from triform.runtime.graphs.concatenated.step import ConcatenatedStep
from triform.runtime.graphs.encoder_output import HostEncoderOutput, run_encoder
from triform.runtime.graphs.protocols import BindableSession, GraphSession


class ConcatenatedMemory:
    """Numpy arrays.

    Attributes:
        session: of the decoder's graph.
    """

    # As for other graphs on a processor.
    chunk = 512
    # Prompts of different lengths are read one by one: a graph like this has no place for padding behind a row.
    together = 0

    def __init__(self, session: BindableSession, cache: CacheInfo, vocab_size: int) -> None:
        """Take a session; see `memory_of`."""
        self.session, self._cache, self._vocab_size = session, cache, vocab_size
        self._working = WorkingArrays()

    @property
    def copied_bytes(self) -> None:
        """See `DecoderMemory`."""

    def buffers(self) -> ConcatenatedBuffers:
        """See `DecoderMemory`."""
        return ConcatenatedBuffers(self._cache, self._working)

    def on(self, session: BindableSession) -> ConcatenatedMemory:
        """See `DecoderMemory`."""
        return ConcatenatedMemory(session, self._cache, self._vocab_size)

    def encode(
        self, encoder: GraphSession, inputs: Sequence[str], outputs: Sequence[str], arrays: Mapping[str, NDArray[Any]]
    ) -> HostEncoderOutput:
        """See `DecoderMemory`."""
        values = run_encoder(encoder, inputs, outputs, arrays)
        return HostEncoderOutput(dict(zip(outputs, values, strict=True)))

    def step(self, shape: tuple[int, int], num_logits: int, *, repeated: bool = False) -> ConcatenatedStep:
        """See `DecoderMemory`."""
        return ConcatenatedStep(self._working, self._cache, shape, num_logits, self._vocab_size)
