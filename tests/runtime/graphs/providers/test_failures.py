"""What is said of texts that onnxruntime 1.31, CUDA 13 and the WebGPU plugin 0.4 wrote."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from triform.runtime.errors import is_out_of_memory
from triform.runtime.graphs.providers.failures import (
    first_line,
    is_of_gpu,
    known_cause,
    missing_library,
    unknown_part,
)
from triform.runtime.graphs.providers.names import CUDA, TENSORRT

FAILURE = (
    "CUDA failure {} ; GPU=-1 ; hostname=h ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_pr"
    "ovider.cc ; line=286 ; expr=cudaSetDevice(info_.device_id);"
)
DRIVER = FAILURE.format("35: CUDA driver version is insufficient for CUDA runtime version")
NO_DEVICE = FAILURE.format("100: no CUDA-capable device is detected")
NO_CODE = FAILURE.format("209: no kernel image is available for execution on the device")
NO_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::RegisterTensorRTPl"
    "uginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please install TensorRT libraries as "
    "mentioned in the GPU requirements page"
)
NO_ADAPTER = (
    "[ONNXRuntimeError] : 11 : EP_FAIL : /onnxruntime_src/onnxruntime/core/providers/webgpu/webgpu_context.cc:136 "
    "onnxruntime::webgpu::WebGpuContext::Initialize(const onnxruntime::webgpu::WebGpuContextConfig&)::<lambda()> "
    "adapter_result.status == wgpu::RequestAdapterStatus::Success was false. Failed to get a WebGPU adapter: No "
    "supported adapters"
)
PADDED = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MultiHeadAttention node. "
    "Name:'node__symbolic' Status Message: input `key_padding_mask` not implemented for web"
)
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul node. Name:'m' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool) Failed to allocate memory "
    "for requested buffer of size 1073741824"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DRIVER, "the NVIDIA driver is missing or too old for this onnxruntime; update it"),
        (NO_DEVICE, "no NVIDIA GPU is visible; look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES"),
        (NO_CODE, "this onnxruntime has no code for a GPU of this generation"),
        (
            "This session cannot use the graph capture feature as requested by the user  as all compute graph nodes "
            "have not been partitioned to the CUDAExecutionProvider",
            "CUDA can only record graphs that it runs as a whole",
        ),
        (NO_TENSORRT, "TensorRT is not installed; use the provider cuda, or install TensorRT 10"),
        (NO_ADAPTER, "no GPU has a driver that WebGPU can use (Vulkan, Direct3D 12 or Metal)"),
        (PADDED, "WebGPU's attention knows no padded rows, which encoders need; use another provider"),
        (
            "Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open "
            "shared object file: No such file or directory",
            "libcublasLt.so.13 cannot be loaded; pip install 'onnxruntime-gpu[cuda,cudnn]' brings NVIDIA's libraries",
        ),
    ],
)
def test_a_known_cause_is_said_with_what_to_do(text, said):
    assert known_cause(RuntimeError(text)) == said


def test_of_other_errors_the_first_line_is_said_without_the_place_in_the_source():
    assert known_cause(RuntimeError("Unknown provider option: speed")) is None
    text = (
        "/onnxruntime_src/onnxruntime/core/providers/webgpu/webgpu_provider_factory.cc:88 onnxruntime::WebGpuExecution"
        "ProviderConfig onnxruntime::{anonymous}::ParseEpConfig(const onnxruntime::ConfigOptions&) Invalid enable "
        "graph capture: maybe\nand a trace"
    )
    assert first_line(RuntimeError(text)) == "Invalid enable graph capture: maybe"
    assert first_line(RuntimeError("a" * 999)) == "a" * 200
    assert first_line(RuntimeError()) == "RuntimeError"


@pytest.mark.parametrize(
    ("text", "of_gpu"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(handle)", True),
        ("CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0", True),
        ("vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY", True),
        ("CudaMempoolArena::Alloc: cudaMallocFromPoolAsync failed: out of memory", True),
        ("CUFFT failure 2: CUFFT_ALLOC_FAILED ; GPU=0", True),
        # Of an arena, which the CPU has too.
        (ARENA, False),
    ],
)
def test_what_says_that_memory_is_full(text, of_gpu):
    error = RuntimeError(text)
    assert is_out_of_memory(error)
    assert is_of_gpu(error) == of_gpu


@pytest.fixture
def gpu_package(tmp_path, monkeypatch):
    """The part of onnxruntime-gpu that is looked at; what loading its libraries says is given by name."""
    folder = tmp_path / "capi"
    folder.mkdir()
    for name in ("cuda", "tensorrt"):
        (folder / f"libonnxruntime_providers_{name}.so").touch()
    said = {}

    def load(path):
        name = next(name for name in ("cuda", "tensorrt") if name in path.rpartition("/")[2])
        if name in said:
            raise OSError(said[name])

    monkeypatch.setattr(ctypes, "CDLL", load)
    return SimpleNamespace(ort=SimpleNamespace(__file__=str(tmp_path / "__init__.py")), said=said)


@pytest.mark.parametrize(
    ("provider", "name", "library", "said"),
    [
        (CUDA, "cuda", "libcuda.so.1", "the NVIDIA driver is missing: libcuda.so.1 cannot be loaded"),
        (
            CUDA,
            "cuda",
            "libcudart.so.13",
            "libcudart.so.13 cannot be loaded; pip install 'onnxruntime-gpu[cuda,cudnn]'",
        ),
        (TENSORRT, "tensorrt", "libnvinfer.so.10", "TensorRT is not installed: libnvinfer.so.10 cannot be loaded"),
    ],
)
def test_an_absent_library_is_named(gpu_package, provider, name, library, said):
    gpu_package.said[name] = f"{library}: cannot open shared object file: No such file or directory"
    assert missing_library(gpu_package.ort, provider).startswith(said)


def test_libraries_that_load_or_miss_only_what_onnxruntime_brings_are_not_absent(gpu_package):
    assert missing_library(gpu_package.ort, CUDA) is None
    gpu_package.said["cuda"] = "libonnxruntime_providers_cuda.so: undefined symbol: Provider_GetHost"
    assert missing_library(gpu_package.ort, CUDA) is None


def test_providers_without_a_library_of_their_own_lack_none(gpu_package):
    assert missing_library(gpu_package.ort, "AzureExecutionProvider") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Fatal error: com.example:Boom(-1) is not a registered function/op", "the operator com.example:Boom"),
        ("Fatal error: ai.onnx:Boom(22) is not a registered function/op", "the operator Boom"),
        ("No Op registered for Boom with domain_version of 22", "the operator Boom"),
        ("No opset import for domain 'com.example'", "operators of the domain com.example"),
        ("Unsupported model IR version: 99, max supported IR version: 11", "version 99 of ONNX's file format"),
        ("ONNX Runtime only guarantees support for released opset versions. Opset 99 is under development and "
         "support for this is limited.", "version 99 of ONNX's operators"),
        ("No Op registered for " + 300 * "x" + " with domain_version of 1", "the operator " + 200 * "x"),
        ("Invalid model", None),
    ],
)  # fmt: skip
def test_what_onnxruntime_does_not_know_is_named(text, said):
    assert unknown_part(RuntimeError(text)) == said
