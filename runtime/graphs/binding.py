"""The buffers of one run of a decoder graph, bound to its inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from triform.runtime.graphs.session import run_failure


class StepBinding:
    """Fixed numpy buffers behind a graph's inputs and logits: writing to them is all a step needs.

    Attributes:
        input_ids: int64 (batch, sequence).
        past_lengths: int32 (batch,).
        logits_positions: int64 (batch, num_logits), 0 at first.
        logits: float32 (batch, num_logits, vocab_size).
    """

    def __init__(self, session: Any, shape: tuple[int, int], num_logits: int, vocab_size: int) -> None:
        from onnxruntime import OrtValue

        self.io = session.io_binding()
        batch, _ = shape
        self.input_ids = np.zeros(shape, np.int64)
        self.past_lengths = np.zeros(batch, np.int32)
        self.logits_positions = np.zeros((batch, num_logits), np.int64)
        self.logits = np.empty((batch, num_logits, vocab_size), np.float32)
        for name in ("input_ids", "past_lengths", "logits_positions"):
            self.io.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(getattr(self, name)))
        self.io.bind_ortvalue_output("logits", OrtValue.ortvalue_from_numpy(self.logits))


def run_step(session: Any, binding: StepBinding) -> None:
    """Run the decoder graph on what is bound.

    Raises:
        TriformError: onnxruntime failed.
    """
    try:
        session.run_with_iobinding(binding.io)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise run_failure("decoder", error) from error
