"""The key/value cache: one buffer a layer and part, bound to the graph as past and present alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import InputError
from triform.runtime.manifest import CacheInfo

# Capacities are multiples of this, so that small differences in prompt length reuse the same buffers.
_STEP = 64


class KVCache:
    """Buffers of shape (batch, num_key_value_heads, capacity, head_dim), float32, written in place by the graph.

    Attributes:
        lengths: int32 (batch,), tokens each row holds.
        capacity: tokens a row has room for.
    """

    def __init__(self, info: CacheInfo, max_length: int, batch: int = 1) -> None:
        self._info = info
        self._max_length = max_length
        self._arrays: dict[str, NDArray[np.float32]] = {}
        self.lengths = np.zeros(batch, np.int32)
        self.capacity = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(array.nbytes for array in self._arrays.values())

    def reset(self) -> None:
        """Forget all tokens; buffers stay."""
        self.lengths[:] = 0

    def trim(self, count: int) -> None:
        """Forget the last `count` tokens of every row."""
        self.lengths[:] = np.maximum(self.lengths - count, 0)

    def advance(self, count: int | NDArray[Any]) -> None:
        """Note that the graph has written `count` more tokens a row."""
        self.lengths += np.asarray(count, np.int32)

    def reserve(self, length: int) -> bool:
        """Make room for `length` tokens a row, keeping what is there.

        Grows to at least twice the present capacity, so that a long generation copies its cache a few times only.

        Returns:
            whether the buffers changed, and must be bound again.

        Raises:
            InputError: `length` is more than the model's limit, or than fits into memory.
        """
        if length > self._max_length:
            raise InputError(f"{length} tokens do not fit into the model's context of {self._max_length}")
        if length <= self.capacity:
            return False
        target = max(length, 2 * self.capacity)
        capacity = min(-(-target // _STEP) * _STEP, self._max_length)
        try:
            for index, layer in enumerate(self._info.layers):
                shape = (len(self.lengths), layer.num_key_value_heads, capacity, layer.head_dim)
                for part in ("key", "value"):
                    self._grow(f"{index}.{part}", shape)
        except MemoryError:
            raise InputError(f"a cache of {capacity} tokens does not fit into memory; ask for fewer tokens") from None
        self.capacity = capacity
        return True

    def _grow(self, name: str, shape: tuple[int, ...]) -> None:
        grown = np.zeros(shape, np.float32)
        used = int(self.lengths.max())
        if used:
            grown[:, :, :used] = self._arrays[name][:, :, :used]
        self._arrays[name] = grown

    def bind(self, binding: Any) -> None:
        """Bind every buffer as the graph's past and present.

        Args:
            binding: onnxruntime.IOBinding.
        """
        from onnxruntime import OrtValue

        for name, array in self._arrays.items():
            # Shares memory with the array: the graph reads and writes the buffer itself.
            value = OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
