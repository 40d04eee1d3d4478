"""Finds the likeliest tokens on the device, so that not all logits need to come to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.graphs.device.memory import Device
from triform.runtime.graphs.device.opening import open_like
from triform.runtime.graphs.device.small_graphs import FLOAT, INT64, Operator, Tensor, small_graph

if TYPE_CHECKING:
    from onnxruntime import OrtValue


# Axes of the logits of rows: (rows, 1, vocab_size).
_RANK = 3


class Ranking:
    """The `count` likeliest tokens of each row of logits."""

    def __init__(self, session: Any, device: Device) -> None:
        """Prepare.

        Args:
            session: of the decoder, whose provider ranks.
            device: that the logits are on.
        """
        self._like, self._device = session, device
        self._session: Any = None

    def __call__(self, logits: OrtValue, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rank.

        Args:
            logits: float32 (rows, 1, vocab_size), on the device.
            count: at most vocab_size.

        Returns:
            tokens in ascending order, int64 (rows, 1, count), and their logits, float32.
        """
        if self._session is None:
            node = Operator("TopK", ["logits", "count"], ["values", "tokens"])
            inputs, outputs = (
                [Tensor("logits", FLOAT, _RANK), Tensor("count", INT64, 1)],
                [Tensor("values", FLOAT, _RANK), Tensor("tokens", INT64, _RANK)],
            )
            self._session = open_like(self._like, small_graph([node], inputs, outputs))
        shape = (*logits.shape()[:-1], count)
        values, tokens = self._device.empty(shape, np.float32), self._device.empty(shape, np.int64)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("logits", logits)
        binding.bind_cpu_input("count", np.array([count], np.int64))
        binding.bind_ortvalue_output("values", values)
        binding.bind_ortvalue_output("tokens", tokens)
        self._session.run_with_iobinding(binding)
        ids, numbers = self._device.fetch(tokens), self._device.fetch(values)
        order = ids.argsort(-1)
        return np.take_along_axis(ids, order, -1), np.take_along_axis(numbers, order, -1)
