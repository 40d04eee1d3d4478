"""What is said of the operators that a provider leaves to the CPU."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from triform.runtime.graphs.providers.assignment import Assignment, assignment, fallback_note

CUDA, WEBGPU = "CUDAExecutionProvider", "WebGpuExecutionProvider"


def test_operators_are_counted_by_where_they_run():
    def part(provider, *operators):
        return SimpleNamespace(
            ep_name=provider, get_nodes=lambda: [SimpleNamespace(op_type=operator) for operator in operators]
        )

    parts = [part(CUDA, "MatMul", "Add"), part("CPUExecutionProvider", "Squeeze", "Squeeze")]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    assert assignment(session, CUDA) == Assignment(4, Counter(Squeeze=2))


@pytest.mark.parametrize(
    ("provider", "operator", "remedy"),
    [
        # Those that have no CUDA kernel: attention in float32, and products of a quantized encoder.
        (CUDA, "GroupQueryAttention", "; export the model with `ExportOptions.target` gpu for it"),
        (CUDA, "MatMulIntegerToFloat", "; export the model with `ExportOptions.target` gpu for it"),
        (WEBGPU, "MatMulIntegerToFloat", "; export the model with `ExportOptions.quantize` none for it"),
        (WEBGPU, "FusedMatMul", ""),
        (WEBGPU, "GroupQueryAttention", ""),
        (CUDA, "FusedMatMul", ""),
    ],
)
def test_what_is_left_is_listed_with_what_to_do(provider, operator, remedy):
    left = Assignment(300, Counter({"Squeeze": 2, operator: 24}))
    short = {CUDA: "cuda", WEBGPU: "webgpu"}[provider]
    assert fallback_note(left, provider, "m.onnx") == (
        f"provider {short} leaves 26 of 300 operators of m.onnx to the cpu: 24 {operator}, 2 Squeeze{remedy}"
    )


def test_operators_on_shapes_are_not_worth_a_word():
    assert fallback_note(Assignment(300, Counter(Squeeze=2, Reshape=2, Concat=1)), CUDA, "m.onnx") is None
    assert fallback_note(Assignment(300, Counter()), CUDA, "m.onnx") is None
