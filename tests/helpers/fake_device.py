"""A device whose memory is the host's, but which notices what a real one would not forgive, and counts what is copied.

It runs on the CPU provider. Inputs must be in its own memory, but for those that a graph reads on the host.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from onnxruntime import OrtValue

from triform.runtime.graphs.device import memory, opening

NAME = "cuda"
# What the graphs of decoders read on the host.
ON_HOST = ("total_sequence_length",)


class FakeDevice(memory.Device):
    """Attributes: see `Device`; `largest` is the size in bytes of the largest copy in either direction."""

    def __init__(self, name):
        assert name == NAME
        super().__init__("cpu")
        self.largest = 0
        self.copies = 0
        FakeDevice.made.append(self)

    made: ClassVar[list[FakeDevice]] = []
    # Addresses and sizes of the values that are on the device, kept alive so that no other gets their place.
    values: ClassVar[list[OrtValue]] = []

    def empty(self, shape, dtype):
        value = super().empty(shape, dtype)
        # What a device's memory holds is unknown: numbers that would show.
        filling = np.full(tuple(shape), np.nan if np.issubdtype(dtype, np.floating) else -7, dtype)
        value.update_inplace(filling)
        FakeDevice.values.append(value)
        return value

    def write(self, value, array):
        self._count(array.nbytes)
        super().write(value, array)

    def fetch(self, value):
        array = super().fetch(value).copy()
        self._count(array.nbytes)
        return array

    def outputs(self, binding):
        values = super().outputs(binding)
        FakeDevice.values += values
        return values

    def _count(self, size):
        self.largest = max(self.largest, size)
        self.copies += 1


def is_on_device(address: int) -> bool:
    return any(v.data_ptr() <= address < v.data_ptr() + max(v.tensor_size_in_bytes(), 1) for v in FakeDevice.values)


class FakeBinding:
    """Refuses inputs and outputs that are not on the device.

    Inputs in `copied` are read by operators on the host: they are copied there when they are bound.
    """

    copied: ClassVar[tuple[str, ...]] = ()

    def __init__(self, binding):
        self.binding = binding
        # The copies, which a binding does not keep alive.
        self._kept = {}

    def bind_ortvalue_input(self, name, value):
        assert name in ON_HOST or is_on_device(value.data_ptr()), f"{name} is on the host"
        if name in self.copied:
            value = self._kept[name] = OrtValue.ortvalue_from_numpy(value.numpy().copy())
        self.binding.bind_ortvalue_input(name, value)

    def bind_ortvalue_output(self, name, value):
        assert is_on_device(value.data_ptr()), f"{name} is on the host"
        self.binding.bind_ortvalue_output(name, value)

    def bind_input(self, name, device, number, element_type, shape, address):
        assert is_on_device(address), f"{name} is on the host"
        self.binding.bind_input(name, device, number, element_type, shape, address)

    def bind_output(self, name, device, number, element_type=None, shape=None, address=None):
        # Without an address, the graph makes room on the device; see `FakeDevice.outputs`.
        assert address is None or is_on_device(address), f"{name} is on the host"
        self.binding.bind_output(name, device, number, element_type, shape, address)

    def __getattr__(self, name):
        return getattr(self.binding, name)


class FakeSession:
    """A session of the CPU that says that its inputs are on a device."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def io_binding(self):
        return FakeBinding(self._session.io_binding())

    def run_with_iobinding(self, binding, options=None):
        self._session.run_with_iobinding(getattr(binding, "binding", binding), options)

    def get_input_memory_infos(self):
        return [SimpleNamespace(name="Cpu" if node.name in ON_HOST else "Cuda") for node in self.get_inputs()]


@pytest.fixture
def fake_device(monkeypatch):
    """Graphs for GPUs that are opened meanwhile are on a fake device; returns the class, which knows all devices."""
    FakeDevice.made, FakeDevice.values = [], []
    original = opening.open_session
    monkeypatch.setattr(memory, "Device", FakeDevice)
    monkeypatch.setattr(
        opening, "open_session", lambda *args, **options: FakeSession(original(*args, **_plain(options)))
    )
    yield FakeDevice
    FakeDevice.made, FakeDevice.values = [], []


def _plain(options):
    return {name: value for name, value in options.items() if name != "cuda_graph"}
