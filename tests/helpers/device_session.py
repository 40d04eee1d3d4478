"""A session that treats its inputs and outputs as one on a device does: each has memory of its own."""

from __future__ import annotations

from types import SimpleNamespace

from onnxruntime import OrtValue


class DeviceBinding:
    """Copies an input when it is bound, and a bound output when the graph has run."""

    def __init__(self, binding, on_host):
        self.binding = binding
        self._on_host = on_host
        self._outputs = {}
        # The memory of the device.
        self._kept = {}

    def bind_ortvalue_input(self, name, ortvalue):
        value = ortvalue if name in self._on_host else OrtValue.ortvalue_from_numpy(ortvalue.numpy().copy())
        self._kept[name] = value
        self.binding.bind_ortvalue_input(name, value)

    def bind_ortvalue_output(self, name, ortvalue):
        self.binding.bind_ortvalue_output(name, ortvalue)


class DeviceSession:
    """An InferenceSession of the CPU, whose inputs are on a device: all, or all that `on_host` does not name."""

    def __init__(self, session, on_host=lambda name: False):
        self._session = session
        self._on_host = {node.name for node in session.get_inputs() if on_host(node.name)}
        self.runs = 0

    def __getattr__(self, name):
        return getattr(self._session, name)

    def io_binding(self):
        return DeviceBinding(self._session.io_binding(), self._on_host)

    def run_with_iobinding(self, binding, options=None):
        self.runs += 1
        self._session.run_with_iobinding(binding.binding, options)

    def get_input_memory_infos(self):
        names = [node.name for node in self.get_inputs()]
        return [SimpleNamespace(name="Cpu" if name in self._on_host else "Cuda") for name in names]
