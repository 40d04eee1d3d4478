"""One step of a decoder's graph for GPUs: a few numbers go to the device, and a few come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.graphs.device.memory import ELEMENT_TYPES, Device, Place
from triform.runtime.graphs.device.opening import is_recordable
from triform.runtime.graphs.device.ranking import Ranking
from triform.runtime.graphs.protocols import BindableSession
from triform.runtime.likeliest import Likeliest, Tables, likeliest_of

if TYPE_CHECKING:
    from onnxruntime import OrtValue

# Runs of a step before it is recorded: short texts are not worth a recording.
_RUNS = 3
# ONNX Runtime's name of a run that is not recorded.
_NOT_RECORDED = -1
# Numbers of recordings: a number stands for the same buffers as long as its session lives.
_NUMBERS = count(1)
# The input that attention reads on the host.
_TOTAL = "total_sequence_length"


class DeviceStep:
    """The `StepArrays` of graphs for GPUs.

    A step that is run again and again is recorded as a CUDA graph. Attention is then told of the whole capacity; how
    many tokens of it each row has is told by ``seqlens_k``, which is read on the device.

    Attributes:
        input_ids: int64 (batch, sequence).
        past_lengths: int32 (batch,).
        logits_positions: int64 (batch, num_logits), 0 at first.
        new_lengths: int32 (batch,), the whole sequence at first; only a prompt's rows may have fewer.
    """

    def __init__(
        self, session: BindableSession, device: Device, ranking: Ranking, dtype: str, shape: tuple[int, int],
        num_logits: int, vocab_size: int, *, repeated: bool,
    ) -> None:  # fmt: skip
        """Make and bind what does not depend on the cache.

        Args:
            session: of the decoder's graph.
            device: that it reads its cache from.
            ranking: of its logits.
            dtype: of the cache.
            shape: batch and sequence.
            num_logits: positions of each row to compute logits for.
            vocab_size: of the model.
            repeated: whether the step will be run many times on the same buffers.
        """
        from onnxruntime import OrtValue

        batch, sequence = shape
        self._device, self._io, self._element_type = device, session.io_binding(), ELEMENT_TYPES[dtype]
        self._ranking = ranking
        self._recordable = is_recordable(session)
        self._repeated = repeated
        self.input_ids = np.zeros(shape, np.int64)
        self.past_lengths = np.zeros(batch, np.int32)
        self.logits_positions = np.zeros((batch, num_logits), np.int64)
        self.new_lengths = np.full(batch, sequence, np.int32)
        self._first_rows = np.arange(batch)[:, None] * sequence
        self._total = np.zeros(1, np.int32)
        self._capacity = 0
        self._runs = 0
        self._options = _run_options(_NOT_RECORDED if self._recordable else None)
        taken = {node.name for node in session.get_inputs()}
        self._inputs: dict[str, OrtValue] = {}
        # What the device has of each input.
        self._sent: dict[str, NDArray[Any]] = {}
        for name, value in self._host_inputs().items():
            if name in taken:
                self._inputs[name] = device.upload(value)
                self._sent[name] = value.copy()
                self._io.bind_ortvalue_input(name, self._inputs[name])
        # On the host its memory is shared.
        self._io.bind_ortvalue_input(_TOTAL, OrtValue.ortvalue_from_numpy(self._total))
        self._outputs: dict[str, OrtValue] = {}
        rows = batch * num_logits
        self._add("logits", (rows, 1, vocab_size), np.float32)
        self._add("next_ids", (rows, 1), np.int64)

    def add_output(self, name: str, shape: Sequence[int]) -> None:
        """Bind another output, float32 of this shape."""
        self._add(name, shape, np.float32)

    def _add(self, name: str, shape: Sequence[int], dtype: type) -> None:
        self._outputs[name] = self._device.empty(shape, dtype)
        self._io.bind_ortvalue_output(name, self._outputs[name])

    def bind_state(self, past: str, present: str, value: Place) -> None:
        """Bind an array of the device that each run reads and changes."""
        self._capacity = value.shape[2]
        self._device.bind_input(self._io, past, value, self._element_type)
        self._device.bind_output(self._io, present, value, self._element_type)

    def run(self, session: BindableSession) -> None:
        """Send what changed, and run."""
        whole = self._repeated and self._recordable
        self._total[0] = self._capacity if whole else self.past_lengths.max() + self.input_ids.shape[1]
        for name, value in self._host_inputs().items():
            if name in self._inputs and not np.array_equal(value, self._sent[name]):
                self._device.write(self._inputs[name], value)
                self._sent[name][...] = value
                if not self._recordable:
                    # An input that an operator reads on the host is copied there when it is bound, and never again.
                    self._io.bind_ortvalue_input(name, self._inputs[name])
        if whole and self._runs == _RUNS:
            self._options = _run_options(next(_NUMBERS))
        session.run_with_iobinding(self._io, self._options)
        self._runs += 1

    def _host_inputs(self) -> dict[str, NDArray[Any]]:
        return {
            "input_ids": self.input_ids,
            "past_lengths": self.past_lengths,
            "seqlens_k": self.past_lengths + self.new_lengths - np.int32(1),
            "logits_rows": (self._first_rows + self.logits_positions).ravel(),
        }

    @property
    def logits(self) -> Array:
        """All logits, float32 (batch, num_logits, vocab_size), copied from the device."""
        logits: Array = self._device.fetch(self._outputs["logits"]).reshape(*self.logits_positions.shape, -1)
        return logits

    @property
    def outputs(self) -> Mapping[str, Array]:
        """The outputs that were added, float32 by name, copied from the device."""
        return {
            name: self._device.fetch(value)
            for name, value in self._outputs.items()
            if name not in ("logits", "next_ids")
        }

    def scores(self, wanted: int | None) -> Tables:
        """See `StepArrays`."""
        if wanted is None:
            return self.logits
        batch, _ = self.logits_positions.shape
        best = self._device.fetch(self._outputs["next_ids"])[:, 0]
        rows = likeliest_of(best)
        if wanted > 1:
            tokens, logits = self._ranking(self._outputs["logits"], wanted)
            rows = [Likeliest(row.best, tokens[i, 0], logits[i, 0]) for i, row in enumerate(rows)]
        width = len(rows) // batch
        return [rows[start : start + width] for start in range(0, len(rows), width)]


def _run_options(recording: int | None) -> Any:
    from onnxruntime import RunOptions

    options = RunOptions()
    if recording is not None:
        options.add_run_config_entry("gpu_graph_id", str(recording))
    return options
