"""How a decoder's weights are stored for GPUs: in 4 bits if that is asked for and there is no graph for the CPU."""

from __future__ import annotations

import pytest

from triform.export.forms.decoders import gpu
from triform.export.options import ExportOptions
from triform.runtime.bundle.manifest import Quantization


@pytest.mark.parametrize(
    ("quantize", "target", "blocks"),
    [("int4", "gpu", True), ("int4", "cpu,gpu", False), ("none", "gpu", False), ("int8", "cpu,gpu", False)],
)
def test_products(monkeypatch, quantize, target, blocks):
    called = []
    monkeypatch.setattr(gpu, "lower_to_gpu_blocks", lambda graph, importance: called.append("blocks") or importance)
    monkeypatch.setattr(gpu, "lower_to_float", lambda graph: called.append("float"))
    given = {"weight": None}
    found = gpu.lower_products(None, ExportOptions(quantize=quantize, target=target), given)
    assert called == ["blocks" if blocks else "float"]
    assert found is given if blocks else found == Quantization("none")
