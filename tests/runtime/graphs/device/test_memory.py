"""The memory of a device: what is said when it cannot be had."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from triform.runtime.errors import ProviderError
from triform.runtime.graphs.device.encoder_output import DeviceEncoderOutput
from triform.runtime.graphs.device.memory import ELEMENT_TYPES, HALF, Device, Place


def test_a_device_that_this_onnxruntime_cannot_use_is_not_taken_for_a_full_one():
    """onnxruntime for the CPU knows of CUDA, and has none."""
    with pytest.raises(ProviderError, match=r"^onnxruntime could not use the memory of the device cuda: Can't"):
        Device("cuda").empty((2, 2), np.float16)


def test_a_full_device_is_told_apart(monkeypatch):
    def full(*_):
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);")

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", full)
    with pytest.raises(MemoryError):
        Device("cuda").empty((2, 2), np.float16)


def test_rows_of_an_array_are_behind_those_before_them():
    """Of rows of 3 x 5 numbers of two bytes."""
    assert Place(1000, (4, 3, 5)).rows(2, 1) == Place(1000 + 2 * 30, (1, 3, 5))
    assert Place(1000, (4,)).rows(3, 1) == Place(1006, (1,))


def test_numbers_of_16_bits():
    assert (HALF, np.dtype(ELEMENT_TYPES["float16"]).itemsize) == (2, 2)
    assert ELEMENT_TYPES["bfloat16"] == onnx.TensorProto.BFLOAT16


def test_a_failure_without_a_known_cause_is_told_in_its_first_line(monkeypatch):
    def broken(*_):
        raise RuntimeError("no such thing\nat some place")

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", broken)
    with pytest.raises(ProviderError, match=r"the memory of the device cuda: no such thing$"):
        Device("cuda").empty((2, 2), np.float16)


def test_sources_on_a_device():
    """Two sources, whose keys have three positions; a picker copies those that are chosen."""
    values = {name: SimpleNamespace(shape=lambda sizes=sizes: sizes) for name, sizes in
              (("mask", [2, 7]), ("0.key", [2, 4, 3, 8]))}  # fmt: skip
    picked = []
    output = DeviceEncoderOutput(values, lambda *given: picked.append(given) or dict(values))
    assert (output.sources, output.length) == (2, 3)
    assert output.only([0, 1]) is output and picked == []
    for chosen in ((1,), (1, 0), (0, 0)):
        assert output.only(chosen) is not output
        assert picked.pop() == (values, list(chosen))
    bound = {}
    output.bind(SimpleNamespace(bind_ortvalue_input=bound.__setitem__))
    assert bound == values
