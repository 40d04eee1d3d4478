"""The names of providers: onnxruntime's, and the short ones that users write."""

from __future__ import annotations

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
_ENDING = "ExecutionProvider"
# How products are called where onnxruntime shortens or lengthens their names.
_ALIASES = {"directml": "dml", "tensorrtrtx": "nvtensorrtrtx"}


def short_name(provider: str) -> str:
    """The name that users write: ``cuda`` for CUDAExecutionProvider."""
    return provider.removesuffix(_ENDING).lower()


def is_called(provider: str, written: str) -> bool:
    """Whether a user means a provider: with or without "ExecutionProvider", in any case."""
    name = written.lower().removesuffix(_ENDING.lower())
    return short_name(provider) == _ALIASES.get(name, name)
