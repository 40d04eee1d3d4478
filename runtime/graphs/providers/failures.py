"""What stops a provider, from onnxruntime's texts: one line that says what is wrong and what to do."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

from triform.runtime.graphs.providers.names import CUDA, TENSORRT

_LONGEST = 200
# Libraries that packages of NVIDIA bring.
_OF_CUDA = ("libcu", "libnv")
# The libraries that onnxruntime loads for a provider, in its folder `capi`.
_LIBRARIES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
_MISSING_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_DRIVER = "the NVIDIA driver is missing: libcuda.so.1 cannot be loaded; `nvidia-smi` works where there is one"
# What onnxruntime, CUDA and plugins say, and what is the matter.
_CAUSES = (
    (r"driver version is insufficient", "the NVIDIA driver is missing or too old for this onnxruntime; update it"),
    (r"no CUDA-capable device", "no NVIDIA GPU is visible; look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES"),
    (r"no kernel image is available", "this onnxruntime has no code for a GPU of this generation"),
    (r"cannot use the graph capture feature", "CUDA can only record graphs that it runs as a whole"),
    (r"Please install TensorRT", "TensorRT is not installed; use the provider cuda, or install TensorRT 10"),
    (
        r"key_padding_mask` not implemented",
        "WebGPU's attention knows no padded rows, which encoders need; use another provider",
    ),
    (r"Failed to get a WebGPU adapter", "no GPU has a driver that WebGPU can use (Vulkan, Direct3D 12 or Metal)"),
)
# The place in onnxruntime's source that its messages begin with.
_PLACE = re.compile(r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?/\S+\.\w+:\d+ .*\)(?: const)? ")
_OF_GPU = re.compile(r"CUDA|CUBLAS|CUDNN|CUFFT|Cuda|WebGPU|VK_ERROR|DXGI")

# What onnxruntime writes of graphs that need more than it has, and what that is.
_UNKNOWN = (
    (r"Fatal error: (?:ai\.onnx:)?(\S+?)\(-?\d+\) is not a registered function", "the operator {}"),
    (r"No Op registered for (\S+) with domain_version", "the operator {}"),
    (r"No opset import for domain '(.+?)'", "operators of the domain {}"),
    (r"Unsupported model IR version: (\d+)", "version {} of ONNX's file format"),
    (r"Opset (\d+) is under development", "version {} of ONNX's operators"),
)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without the place in onnxruntime's source."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return _PLACE.sub("", line)[:_LONGEST]


def known_cause(error: BaseException) -> str | None:
    """What is the matter with a provider and what to do, if an error's text is one that is known."""
    text = str(error)
    if missing := _MISSING_LIBRARY.search(text):
        return _of_missing(missing[1])
    return next((said for pattern, said in _CAUSES if re.search(pattern, text)), None)


def unknown_part(error: BaseException) -> str | None:
    """What a graph has that onnxruntime does not know, such as "the operator com.example:Boom"; None if it is not that.

    Args:
        error: of onnxruntime, when it opens a graph.
    """
    found = ((re.search(pattern, str(error)), what) for pattern, what in _UNKNOWN)
    return next((what.format(match[1][:_LONGEST]) for match, what in found if match), None)


def missing_library(ort: Any, provider: str) -> str | None:
    """What to say of a system library that a built-in provider needs and that is absent; None if there is none.

    onnxruntime leaves such a provider out and writes why to standard error. Only Linux names the library.
    """
    library = Path(ort.__file__).parent / "capi" / _LIBRARIES.get(provider, "")
    if not library.is_file():
        return None
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        # Other errors say nothing: outside onnxruntime the library lacks symbols that onnxruntime brings.
        missing = _MISSING_LIBRARY.search(str(error))
        return _of_missing(missing[1]) if missing else None
    return None


def is_of_gpu(error: BaseException) -> bool:
    """Whether an error's text is of a GPU's library, which tells whose memory it means."""
    return bool(_OF_GPU.search(str(error)))


def _of_missing(library: str) -> str:
    if library.startswith("libcuda.so"):
        return _DRIVER
    if library.startswith("libnvinfer"):
        return f"TensorRT is not installed: {library} cannot be loaded; use the provider cuda, or install TensorRT 10"
    if library.startswith(_OF_CUDA):
        return f"{library} cannot be loaded; pip install 'onnxruntime-gpu[cuda,cudnn]' brings NVIDIA's libraries"
    return f"the system has no {library}"
