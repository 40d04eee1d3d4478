"""Whether providers start."""

from __future__ import annotations

import onnx
import onnxruntime

from triform.runtime.graphs import session
from triform.runtime.graphs.session import provider_problems


def test_the_graph_is_valid():
    model = onnx.load_from_string(session._IDENTITY)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_a_provider_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    found = provider_problems()
    assert found["cpu"] is None
    assert "provider cuda could not start" in found["cuda"]
