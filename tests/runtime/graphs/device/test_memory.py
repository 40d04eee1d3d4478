"""The memory of a device: what is said when it cannot be had."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from triform.runtime.errors import ProviderError
from triform.runtime.graphs.device.memory import Device


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
