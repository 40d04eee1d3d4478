"""What an encoder computed, where a device keeps it for the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.graphs.device.memory import Device
from triform.runtime.graphs.device.opening import open_like
from triform.runtime.graphs.device.small_graphs import INT64, Operator, Tensor, small_graph
from triform.runtime.graphs.encoder_output import check_taken, length_of
from triform.runtime.graphs.protocols import Binding, GraphSession
from triform.runtime.graphs.session import run_failure

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class SourcePicker:
    """Copies some of the sources of an encoder's outputs within a device."""

    def __init__(self, session: Any, device: Device) -> None:
        """Prepare.

        Args:
            session: of the decoder, whose provider copies.
            device: that the outputs are on.
        """
        self._like, self._device = session, device
        self._session: Any = None

    def __call__(self, values: Mapping[str, OrtValue], sources: Sequence[int]) -> dict[str, OrtValue]:
        """The values of some of the sources, in this order."""
        if self._session is None:
            self._session = open_like(self._like, _graph(values))
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(_ROWS, self._device.upload(np.asarray(sources, np.int64)))
        for name, value in values.items():
            binding.bind_ortvalue_input(f"{_ALL}{name}", value)
            self._device.bind_new_output(binding, name)
        self._session.run_with_iobinding(binding)
        return dict(zip(values, self._device.outputs(binding), strict=True))


class DeviceEncoderOutput:
    """The `EncoderOutput` of graphs for GPUs: keys and values of 16-bit floats, and a mask if sources have one."""

    def __init__(self, values: Mapping[str, OrtValue], picker: SourcePicker) -> None:
        """Take values on a device, by the name of the decoder's input; the first axis is the source."""
        self._values, self._picker = values, picker

    @property
    def sources(self) -> int:
        """See `EncoderOutput`."""
        return int(next(iter(self._values.values())).shape()[0])

    @property
    def length(self) -> int:
        """See `EncoderOutput`."""
        return length_of({name: value.shape() for name, value in self._values.items()})

    def only(self, sources: Sequence[int]) -> DeviceEncoderOutput:
        """See `EncoderOutput`; copied on the device."""
        chosen = list(sources)
        if chosen == list(range(self.sources)):
            return self
        return DeviceEncoderOutput(self._picker(self._values, chosen), self._picker)

    def bind(self, binding: Binding) -> None:
        """See `EncoderOutput`."""
        for name, value in self._values.items():
            binding.bind_ortvalue_input(name, value)


def run_encoder_on(
    device: Device, session: GraphSession, inputs: Sequence[str], outputs: Sequence[str],
    arrays: Mapping[str, NDArray[Any]],
) -> dict[str, OrtValue]:  # fmt: skip
    """Run an encoder's graph, and leave its outputs on the device. Arguments and errors as `run_encoder`.

    Returns:
        the values by the name of the output.
    """
    check_taken(inputs, arrays)
    binding: Any = session.io_binding()
    try:
        for name in inputs:
            binding.bind_ortvalue_input(name, device.upload(np.ascontiguousarray(arrays[name])))
        for name in outputs:
            device.bind_new_output(binding, name)
        session.run_with_iobinding(binding)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise run_failure("encoder", error) from error
    return dict(zip(outputs, device.outputs(binding), strict=True))


_ROWS, _ALL = "rows", "all."


def _graph(values: Mapping[str, OrtValue]) -> bytes:
    types = {name: (int(value.element_type()), len(value.shape())) for name, value in values.items()}
    operators = [Operator("Gather", [f"{_ALL}{name}", _ROWS], [name]) for name in values]
    inputs = [Tensor(f"{_ALL}{name}", *kind) for name, kind in types.items()]
    outputs = [Tensor(name, *kind) for name, kind in types.items()]
    return small_graph(operators, [Tensor(_ROWS, INT64, 1), *inputs], outputs)
