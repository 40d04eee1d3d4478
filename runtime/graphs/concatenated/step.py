"""One step of a decoder whose graph takes the keys and values so far, and gives them with the new ones behind them.

All rows of a run have as many tokens in the arrays that the graph takes. Where they differ in length, the shorter ones
stand at the end, and the graph hides what is before them; a graph that cannot do so runs rows of each length apart.
Some graphs take one token of each row in a run; they read a prompt token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.graphs.concatenated.buffers import WorkingArrays
from triform.runtime.graphs.encoder_output import binding_of
from triform.runtime.graphs.protocols import BindableSession, Binding
from triform.runtime.likeliest import Tables

_Rows = NDArray[np.int64]


class ConcatenatedStep:
    """The `StepArrays` of such a graph.

    Attributes:
        input_ids: int64 (batch, sequence).
        past_lengths: int32 (batch,).
        logits_positions: int64 (batch, num_logits), 0 at first.
        new_lengths: int32 (batch,), the whole sequence: no row is padded.
        logits: float32 (batch, num_logits, vocab_size).
    """

    def __init__(
        self, working: WorkingArrays, info: CacheInfo, shape: tuple[int, int], num_logits: int, vocab_size: int
    ) -> None:
        """Make the arrays.

        Args:
            working: see there.
            info: the manifest's.
            shape: batch and sequence.
            num_logits: positions of each row to compute logits for.
            vocab_size: of the model.
        """
        batch, sequence = shape
        self._working, self._info = working, info
        self.input_ids = np.zeros(shape, np.int64)
        self.past_lengths = np.zeros(batch, np.int32)
        self.logits_positions = np.zeros((batch, num_logits), np.int64)
        self.new_lengths = np.full(batch, sequence, np.int32)
        self.logits: Array = np.zeros((batch, num_logits, vocab_size), np.float32)
        # The buffer, and the graph's output, of each of the graph's inputs that take keys and values.
        self._buffers: dict[str, Array] = {}
        self._presents: dict[str, str] = {}

    @property
    def outputs(self) -> Mapping[str, Array]:
        """See `StepArrays`."""
        return {"logits": self.logits}

    def add_output(self, name: str, shape: Sequence[int]) -> None:
        """Not for these graphs, which have no outputs but logits and cache."""
        raise RuntimeError(f"a graph that concatenates has no output {name}")

    def bind_state(self, past: str, present: str, value: Any) -> None:
        """See `StepArrays`."""
        self._buffers[past], self._presents[past] = value, present

    def run(self, session: BindableSession) -> None:
        """See `StepArrays`."""
        width = self.input_ids.shape[1]
        chunk = 1 if self._info.single else width
        for start in range(0, width, chunk):
            for rows in self._groups():
                self._run_rows(session, rows, start, start + chunk)

    def scores(self, wanted: int | None) -> Tables:
        """See `StepArrays`."""
        return self.logits

    def _groups(self) -> list[_Rows]:
        """The rows of each run."""
        everyone = np.arange(len(self.past_lengths))
        if self._info.uneven or (self.past_lengths == self.past_lengths[0]).all():
            return [everyone]
        # A row without tokens is one that waits for a text.
        lengths = [length for length in np.unique(self.past_lengths).tolist() if length]
        return [everyone[self.past_lengths == length] for length in lengths]

    def _run_rows(self, session: BindableSession, rows: _Rows, start: int, end: int) -> None:
        """Run the tokens from `start` to `end` of some rows, whose earlier ones were run."""
        lengths = tuple((self.past_lengths[rows] + start).tolist())
        past, count = max(lengths), end - start
        read = self._past(rows, lengths, past)
        self._working.forget()
        written = {name: self._shaped(name, 1 - self._working.written, rows, past + count) for name in self._buffers}
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": np.ascontiguousarray(self.input_ids[rows, start:end]),
            "past_lengths": np.array(lengths, np.int32),
            # Of several runs each has one token.
            "logits_positions": np.minimum(self.logits_positions[rows], count - 1),
        }
        whole = len(rows) == len(self.logits) and count == self.input_ids.shape[1]
        logits = self.logits if whole else np.empty_like(self.logits[rows])
        binding = binding_of(session, rows, len(self.past_lengths))
        self._run(session, binding, {**inputs, **read}, written, logits)
        for name, buffer in self._buffers.items():
            for place, (row, length) in enumerate(zip(rows.tolist(), lengths, strict=True)):
                buffer[row, :, length : length + count] = written[name][place, :, past:]
        if not whole:
            # Positions behind these tokens get their logits in later runs.
            self.logits[rows] = np.where(self.logits_positions[rows, :, None] >= start, logits, self.logits[rows])
        self._working.written = 1 - self._working.written
        self._working.holds = self._addresses(rows), tuple(length + count for length in lengths)

    def _past(self, rows: _Rows, lengths: tuple[int, ...], past: int) -> dict[str, Array]:
        """The keys and values of these rows, the shorter ones at the end: those that the last run wrote, or a copy."""
        piece = self._working.written
        result = {name: self._shaped(name, piece, rows, past) for name in self._buffers}
        if self._working.holds == (self._addresses(rows), lengths):
            return result
        for name, buffer in self._buffers.items():
            for place, (row, length) in enumerate(zip(rows.tolist(), lengths, strict=True)):
                result[name][place, :, : past - length] = 0
                result[name][place, :, past - length :] = buffer[row, :, :length]
        return result

    def _run(
        self,
        session: BindableSession,
        binding: Binding,
        inputs: Mapping[str, NDArray[Any]],
        written: Mapping[str, Array],
        logits: Array,
    ) -> None:
        from onnxruntime import OrtValue

        outputs = {"logits": logits, **{self._presents[name]: array for name, array in written.items()}}
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(array))
        session.run_with_iobinding(binding)

    def _shaped(self, name: str, piece: int, rows: _Rows, tokens: int) -> Array:
        _, heads, capacity, width = self._buffers[name].shape
        shape = (len(rows), heads, tokens, width)
        return self._working.shaped(name, piece, shape, len(rows) * heads * capacity * width)

    def _addresses(self, rows: _Rows) -> tuple[int, ...]:
        """Where these rows are in the memory of the first buffer."""
        first = next(iter(self._buffers.values()))
        return tuple((first.ctypes.data + first.strides[0] * rows).tolist())
