"""What a decoder's memory hands out on a device and for graphs that concatenate: sizes, and what is counted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tests.helpers.fake_device import FakeDevice
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.graphs.buffers.contract import RowPart
from triform.runtime.graphs.concatenated.buffers import ConcatenatedBuffers
from triform.runtime.graphs.concatenated.memory import ConcatenatedMemory
from triform.runtime.graphs.concatenated.step import ConcatenatedStep
from triform.runtime.graphs.device import decoder_memory as module
from triform.runtime.graphs.device import memory as device_module
from triform.runtime.graphs.device.decoder_memory import DeviceMemory

CACHE = CacheInfo("float16", [LayerCacheInfo(1, 2), LayerCacheInfo(1, 2)])
SESSION = SimpleNamespace(
    get_inputs=lambda: [SimpleNamespace(name="input_ids")],
    get_input_memory_infos=lambda: [SimpleNamespace(name="Cuda")],
    get_providers=lambda: ["CPUExecutionProvider"],
)


def make(monkeypatch):
    monkeypatch.setattr(device_module, "Device", FakeDevice)
    return DeviceMemory(SESSION, CACHE, 11)


def test_prompts_in_long_runs_and_many_rows_together():
    """A GPU is kept busy by 4096 tokens of a prompt, and by 16384 of several; a processor by 512 of one."""
    assert (DeviceMemory.chunk, DeviceMemory.together) == (4096, 16384)
    assert (ConcatenatedMemory.chunk, ConcatenatedMemory.together) == (512, 0)


def test_what_is_copied_is_counted_in_both_directions(monkeypatch):
    memory = make(monkeypatch)
    assert memory.copied_bytes == 0 and memory.device.name == "cpu"
    buffers = memory.buffers()
    buffers.grow(2, 3, 0, 0)
    # A token of zeros for each of four arrays, and which row to copy.
    assert memory.copied_bytes == 4 * 2 * 2 + 8
    buffers.move([RowPart(0, 1, 0, 3)])
    assert memory.copied_bytes == 4 * 2 * 2 + 8 + 16
    buffers.read(3)
    # The row, and three tokens of two numbers for each array.
    assert memory.copied_bytes == 4 * 2 * 2 + 8 + 16 + 8 + 4 * 3 * 2 * 2


def test_steps_of_another_session(monkeypatch):
    memory, made = make(monkeypatch), []
    monkeypatch.setattr(module, "DeviceStep", lambda *given, **named: made.append((given, named)))
    other = memory.on("another")
    assert other.session == "another" and memory.session is SESSION and other.device is memory.device
    other.step((2, 3), 4, repeated=True)
    memory.step((1, 1), 1)
    (given, named), (plain, not_repeated) = made
    assert given[0] == "another" and given[3:] == ("float16", (2, 3), 4, 11) and named == {"repeated": True}
    assert plain[0] is SESSION and plain[3:] == ("float16", (1, 1), 1, 11) and not_repeated == {"repeated": False}


def test_graphs_that_concatenate():
    cache = CacheInfo("float32", [LayerCacheInfo(1, 2)], growth="concatenated")
    memory = ConcatenatedMemory(SESSION, cache, 11)
    assert memory.copied_bytes is None and memory.on("another").session == "another"
    buffers, step = memory.buffers(), memory.step((2, 3), 4)
    assert isinstance(buffers, ConcatenatedBuffers) and isinstance(step, ConcatenatedStep)
    assert (step.input_ids.shape, step.logits.shape) == ((2, 3), (2, 4, 11))
    # Both know of the same working arrays: what a run wrote is forgotten where the buffers change.
    memory._working.holds = ((1,), (1,))
    buffers.grow(1, 2, 0, 0)
    assert memory._working.holds is None
    encoder = SimpleNamespace(run=lambda names, feeds: [feeds["x"] * 2])
    encoded = memory.encode(encoder, ["x"], ["cross"], {"x": np.ones((3, 2), np.float32), "more": None})
    assert encoded.sources == 3
