"""The memory of a device: values in it, and copies between it and the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import ProviderError, is_out_of_memory
from triform.runtime.graphs.protocols import BindableSession, Binding
from triform.runtime.graphs.providers.failures import first_line, known_cause

if TYPE_CHECKING:
    from onnxruntime import OrtValue

# By dtype of a cache, how ONNX Runtime is told of it: numpy has no bfloat16, so onnx.TensorProto's number is given.
ELEMENT_TYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": 16}
# Bytes of a number of 16 bits.
HALF = 2
_ID = 0


@dataclass(frozen=True)
class Place:
    """An array of 16-bit floats at an address of a device.

    Attributes:
        address: of its first number.
        shape: of the array, which is contiguous.
    """

    address: int
    shape: tuple[int, ...]

    def rows(self, first: int, count: int) -> Place:
        """Some entries of the first axis."""
        sizes = self.shape[1:]
        return Place(self.address + first * HALF * prod(sizes), (count, *sizes))


class Device:
    """The memory in which a session's graph reads its cache.

    Attributes:
        name: ONNX Runtime's: cuda or cpu.
        sent: bytes copied from the host so far.
        fetched: bytes copied to the host so far.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = self.fetched = 0

    def empty(self, shape: Sequence[int], dtype: type) -> OrtValue:
        """A value of any content.

        Raises:
            MemoryError: it does not fit.
            ProviderError: the device has failed, or onnxruntime cannot use its memory.
        """
        from onnxruntime import OrtValue

        try:
            return OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.name, _ID)
        except Exception as error:  # onnxruntime's exceptions share no base class
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            fault = known_cause(error) or first_line(error)
            raise ProviderError(f"onnxruntime could not use the memory of the device {self.name}: {fault}") from error

    def upload(self, array: NDArray[Any]) -> OrtValue:
        """A copy of an array.

        Raises:
            MemoryError: it does not fit.
        """
        value = self.empty(array.shape, array.dtype.type)
        self.write(value, array)
        return value

    def write(self, value: OrtValue, array: NDArray[Any]) -> None:
        """Replace a value by an array of its shape and type."""
        self.sent += array.nbytes
        value.update_inplace(np.ascontiguousarray(array))

    def fetch(self, value: OrtValue) -> NDArray[Any]:
        """A copy of a value on the host."""
        array: NDArray[Any] = value.numpy()
        self.fetched += array.nbytes
        return array

    def bind_input(self, binding: Binding, name: str, place: Place, element_type: Any) -> None:
        """Have a graph read an array in place."""
        binding.bind_input(name, self.name, _ID, element_type, list(place.shape), place.address)

    def bind_output(self, binding: Binding, name: str, place: Place, element_type: Any) -> None:
        """Have a graph write an array in place."""
        binding.bind_output(name, self.name, _ID, element_type, list(place.shape), place.address)

    def bind_new_output(self, binding: Any, name: str) -> None:
        """Have a graph make room here for an output whose shape it computes; `outputs` returns it after the run."""
        binding.bind_output(name, self.name, _ID)

    def outputs(self, binding: Any) -> list[OrtValue]:
        """The outputs of the last run, in the order in which they were bound."""
        values: list[OrtValue] = binding.get_outputs()
        return values


def place_of(value: OrtValue) -> Place:
    """Where a value is."""
    return Place(value.data_ptr(), tuple(value.shape()))


def device_of(session: BindableSession) -> Device:
    """The device that a decoder's graph reads its tokens from."""
    nodes, memories = session.get_inputs(), session.get_input_memory_infos()
    names = {node.name: memory.name for node, memory in zip(nodes, memories, strict=True)}
    return Device(names["input_ids"].lower())
