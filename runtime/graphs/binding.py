"""Binds arrays to a decoder graph and runs it on them, in host memory or on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.graphs.buffers.contract import Buffers
from triform.runtime.graphs.buffers.host import HostBuffers
from triform.runtime.graphs.encoder_output import EncoderOutput, HostEncoderOutput, run_encoder
from triform.runtime.graphs.protocols import BindableSession, Binding, GraphSession
from triform.runtime.graphs.session import run_failure
from triform.runtime.likeliest import Tables

if TYPE_CHECKING:
    from onnxruntime import OrtValue

# The inputs of every decoder graph, besides the cache and an encoder's outputs.
STEP_INPUTS = ("input_ids", "past_lengths", "logits_positions")
# The input of graphs with states of fixed size: how many tokens of each row are no padding.
NEW_LENGTHS = "new_lengths"
# ONNX Runtime's name of the memory that numpy arrays are in.
_HOST = "Cpu"


class StepArrays(Protocol):
    """The arrays of one step of a decoder: what it reads is written into them, and what it gives is read from them.

    Attributes:
        input_ids: int64 (batch, sequence).
        past_lengths: int32 (batch,).
        logits_positions: int64 (batch, num_logits), 0 at first.
        new_lengths: int32 (batch,), the whole sequence at first; read where the graph takes it.
    """

    input_ids: NDArray[np.int64]
    past_lengths: NDArray[np.int32]
    logits_positions: NDArray[np.int64]
    new_lengths: NDArray[np.int32]

    @property
    def logits(self) -> Array:
        """Float32 (batch, num_logits, vocab_size)."""

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Float32, by name: those that were added."""

    def add_output(self, name: str, shape: Sequence[int]) -> None:
        """Bind another output, float32 of this shape."""

    def bind_state(self, past: str, present: str, value: Any) -> None:
        """Bind a buffer that each run reads and changes.

        Args:
            past: the input that reads it.
            present: the output that writes it.
            value: the buffer; the caller keeps it alive.
        """

    def run(self, session: BindableSession) -> None:
        """Run the graph on what is bound."""

    def scores(self, wanted: int | None) -> Tables:
        """All logits; or where they are on a device and not all are wanted, the likeliest tokens.

        Args:
            wanted: how many of the likeliest tokens suffice; None for all logits.
        """


class DecoderMemory(Protocol):
    """Where a decoder's cache and the arrays of its steps live.

    Attributes:
        session: of the decoder's graph.
        chunk: tokens of a prompt to feed at once.
        together: most tokens, padding included, of several prompts to feed at once; 0 if prompts are fed one by one.
    """

    session: BindableSession
    chunk: int
    together: int

    @property
    def copied_bytes(self) -> int | None:
        """Bytes copied between the host and the device so far; None where there is no device."""

    def buffers(self) -> Buffers:
        """Empty buffers for a cache."""

    def on(self, session: BindableSession) -> DecoderMemory:
        """The same memory for another session of the same graph."""

    def encode(
        self, encoder: GraphSession, inputs: Sequence[str], outputs: Sequence[str], arrays: Mapping[str, NDArray[Any]]
    ) -> EncoderOutput:
        """Run an encoder's graph, and keep its outputs where the decoder reads them. See `run_encoder`."""

    def step(self, shape: tuple[int, int], num_logits: int, *, repeated: bool = False) -> StepArrays:
        """Arrays for a step.

        Args:
            shape: batch and sequence.
            num_logits: positions of each row to compute logits for.
            repeated: whether the step will be run many times on the same buffers.
        """


class HostMemory:
    """The `DecoderMemory` of graphs for the CPU: numpy arrays.

    Attributes:
        session: of the decoder's graph.
    """

    # Enough for full speed, few enough to keep activations and score matrices small.
    chunk = 512
    # A single prompt keeps a processor busy.
    together = 0

    def __init__(self, session: BindableSession, cache: CacheInfo, vocab_size: int) -> None:
        """Take a session; see `memory_of`."""
        self.session, self._cache, self._vocab_size = session, cache, vocab_size

    @property
    def copied_bytes(self) -> None:
        """See `DecoderMemory`."""

    def buffers(self) -> HostBuffers:
        """See `DecoderMemory`."""
        return HostBuffers(self._cache)

    def on(self, session: BindableSession) -> HostMemory:
        """See `DecoderMemory`."""
        return HostMemory(session, self._cache, self._vocab_size)

    def encode(
        self, encoder: GraphSession, inputs: Sequence[str], outputs: Sequence[str], arrays: Mapping[str, NDArray[Any]]
    ) -> HostEncoderOutput:
        """See `DecoderMemory`."""
        values = run_encoder(encoder, inputs, outputs, arrays)
        return HostEncoderOutput(dict(zip(outputs, values, strict=True)))

    def step(self, shape: tuple[int, int], num_logits: int, *, repeated: bool = False) -> StepBinding:
        """See `DecoderMemory`."""
        return StepBinding(self.session, shape, num_logits, self._vocab_size)


def memory_of(session: BindableSession, cache: CacheInfo, vocab_size: int) -> DecoderMemory:
    """Where the cache and the steps of a decoder live, and how new keys and values get into the cache.

    Args:
        session: of the decoder's graph.
        cache: the manifest's.
        vocab_size: of the model.
    """
    if cache.growth == "concatenated":
        from triform.runtime.graphs.concatenated.memory import ConcatenatedMemory

        return ConcatenatedMemory(session, cache, vocab_size)
    if cache.dtype == "float32":
        return HostMemory(session, cache, vocab_size)
    from triform.runtime.graphs.device.decoder_memory import DeviceMemory

    return DeviceMemory(session, cache, vocab_size)


class StepBinding:
    """Fixed arrays bound to a decoder graph: a step writes its inputs into them, runs, and reads the logits.

    ONNX Runtime reads an input in place if the graph takes it from host memory. An input that the graph takes from a
    device is copied there when it is bound, and later changes of the array have no effect. So inputs that change are
    bound again for each run. Each run copies outputs back into their arrays.

    Attributes:
        input_ids: int64 (batch, sequence).
        past_lengths: int32 (batch,).
        logits_positions: int64 (batch, num_logits), 0 at first.
        new_lengths: int32 (batch,), the whole sequence at first; bound where the graph takes it.
        outputs: float32, by name; ``logits`` are (batch, num_logits, vocab_size).
    """

    def __init__(self, session: BindableSession, shape: tuple[int, int], num_logits: int, vocab_size: int) -> None:
        batch, _ = shape
        self._io = session.io_binding()
        nodes, memories = session.get_inputs(), session.get_input_memory_infos()
        self._in_place = {node.name for node, memory in zip(nodes, memories, strict=True) if memory.name == _HOST}
        self.input_ids = np.zeros(shape, np.int64)
        self.past_lengths = np.zeros(batch, np.int32)
        self.logits_positions = np.zeros((batch, num_logits), np.int64)
        self.new_lengths = np.full(batch, shape[1], np.int32)
        takes_lengths = any(node.name == NEW_LENGTHS for node in nodes)
        # Bound for each run.
        self._inputs = {
            name: _shared(getattr(self, name)) for name in (*STEP_INPUTS, *((NEW_LENGTHS,) if takes_lengths else ()))
        }
        self.outputs: dict[str, Array] = {}
        self.add_output("logits", (batch, num_logits, vocab_size))

    @property
    def logits(self) -> Array:
        """Float32 (batch, num_logits, vocab_size)."""
        return self.outputs["logits"]

    def add_output(self, name: str, shape: Sequence[int]) -> None:
        """Bind another output, float32 of this shape."""
        self.outputs[name] = np.empty(shape, np.float32)
        self._io.bind_ortvalue_output(name, _shared(self.outputs[name]))

    def bind_state(self, past: str, present: str, array: Array) -> None:
        """See `StepArrays`."""
        value = _shared(array)
        if past in self._in_place:
            self._io.bind_ortvalue_input(past, value)
        else:
            self._inputs[past] = value
        self._io.bind_ortvalue_output(present, value)

    def ready(self) -> Binding:
        """Bind the inputs that may have changed since the last run; return the binding."""
        for name, value in self._inputs.items():
            self._io.bind_ortvalue_input(name, value)
        return self._io

    def run(self, session: BindableSession) -> None:
        """See `StepArrays`."""
        session.run_with_iobinding(self.ready())

    def scores(self, wanted: int | None) -> Tables:
        """See `StepArrays`."""
        return self.logits


def run_step(session: BindableSession, binding: StepArrays) -> None:
    """Run the decoder graph on the bound arrays.

    Raises:
        TriformError: onnxruntime failed.
    """
    try:
        binding.run(session)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise run_failure("decoder", error) from error


def _shared(array: NDArray[Any]) -> OrtValue:
    """A value that shares the array's memory."""
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(array)
