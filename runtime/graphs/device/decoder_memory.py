"""The `DecoderMemory` of a decoder whose graph is for GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.graphs.device.buffers import DeviceBuffers
from triform.runtime.graphs.device.encoder_output import DeviceEncoderOutput, SourcePicker, run_encoder_on
from triform.runtime.graphs.device.memory import device_of
from triform.runtime.graphs.device.moves import RowMover
from triform.runtime.graphs.device.ranking import Ranking
from triform.runtime.graphs.device.step import DeviceStep
from triform.runtime.graphs.protocols import BindableSession, GraphSession


class DeviceMemory:
    """Buffers and steps on the device that a session's graph runs on.

    Attributes:
        session: of the decoder's graph.
        device: where its cache is.
    """

    # Long runs keep a GPU busy, and their activations are small beside its memory.
    chunk = 4096
    together = 16384

    def __init__(self, session: BindableSession, cache: CacheInfo, vocab_size: int) -> None:
        """Take a session; see `memory_of`."""
        self.session, self.device = session, device_of(session)
        self._cache, self._vocab_size = cache, vocab_size
        # Small graphs are opened once.
        self._mover = RowMover(session, self.device, 2 * len(cache.layers))
        self._ranking = Ranking(session, self.device)
        self._picker = SourcePicker(session, self.device)

    def on(self, session: BindableSession) -> DeviceMemory:
        """See `DecoderMemory`."""
        other = copy(self)
        other.session = session
        return other

    def encode(
        self, encoder: GraphSession, inputs: Sequence[str], outputs: Sequence[str], arrays: Mapping[str, NDArray[Any]]
    ) -> DeviceEncoderOutput:
        """See `DecoderMemory`."""
        return DeviceEncoderOutput(run_encoder_on(self.device, encoder, inputs, outputs, arrays), self._picker)

    @property
    def copied_bytes(self) -> int:
        """See `DecoderMemory`."""
        return self.device.sent + self.device.fetched

    def buffers(self) -> DeviceBuffers:
        """See `DecoderMemory`."""
        return DeviceBuffers(self._cache, self._mover, self.device)

    def step(self, shape: tuple[int, int], num_logits: int, *, repeated: bool = False) -> DeviceStep:
        """See `DecoderMemory`."""
        return DeviceStep(
            self.session,
            self.device,
            self._ranking,
            self._cache.dtype,
            shape,
            num_logits,
            self._vocab_size,
            repeated=repeated,
        )
