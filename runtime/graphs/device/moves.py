"""Moves rows of a cache within a device, by a graph of ONNX Runtime: no other library is needed for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from triform.runtime.graphs.device.memory import Device, Place
from triform.runtime.graphs.device.opening import open_like
from triform.runtime.graphs.device.small_graphs import FLOAT16, INT64, Operator, Tensor, small_graph

# Axes of a cache's arrays.
_RANK = 4


class RowMover:
    """Copies rows of arrays (rows, heads, tokens, head_dim) of 16-bit floats into others, all in one run.

    Numbers are only copied, so that bfloat16 is moved as float16.
    """

    def __init__(self, session: Any, device: Device, count: int) -> None:
        """Prepare for a number of arrays.

        Args:
            session: of the decoder, whose provider runs the moves.
            device: that the arrays are on.
            count: of the arrays.
        """
        self._like, self._device, self._count = session, device, count
        self._session: Any = None

    def __call__(self, sources: Sequence[Place], rows: Sequence[int], targets: Sequence[Place]) -> None:
        """Make row i of each target row `rows[i]` of its source, cut or padded with zeros to the target's tokens.

        Args:
            sources: an array for each of `count`.
            rows: of a source; targets with more rows get zeros in those behind.
            targets: of another memory than the sources.
        """
        if self._session is None:
            self._session = open_like(self._like, _graph(self._count))
        binding = self._session.io_binding()
        chosen = self._device.upload(np.asarray(rows, np.int64))
        binding.bind_ortvalue_input("rows", chosen)
        more_rows, more_tokens = targets[0].shape[0] - len(rows), targets[0].shape[2] - sources[0].shape[2]
        binding.bind_cpu_input("pads", np.array([0, 0, 0, 0, more_rows, 0, more_tokens, 0], np.int64))
        for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
            self._device.bind_input(binding, f"source.{index}", source, np.float16)
            self._device.bind_output(binding, f"target.{index}", target, np.float16)
        self._session.run_with_iobinding(binding)


def _graph(count: int) -> bytes:
    nodes, inputs, outputs = [], [Tensor("rows", INT64, 1), Tensor("pads", INT64, 1)], []
    for index in range(count):
        source, target = f"source.{index}", f"target.{index}"
        nodes += [
            Operator("Gather", [source, "rows"], [f"rows.{index}"]),
            Operator("Pad", [f"rows.{index}", "pads"], [target]),
        ]
        inputs.append(Tensor(source, FLOAT16, _RANK))
        outputs.append(Tensor(target, FLOAT16, _RANK))
    return small_graph(nodes, inputs, outputs)
