"""From the name that a user writes to a provider of this onnxruntime, made ready, and its options."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from typing import Any

from triform.runtime.errors import ProviderError
from triform.runtime.graphs.providers.names import CPU, CUDA, OPENVINO, TENSORRT, is_called, short_name
from triform.runtime.graphs.providers.plugins import PLUGINS, installed_plugins, register

# Those that bundles made for GPUs run on, the first choice first.
GPU_PROVIDERS = (CUDA,)
# Those that need NVIDIA's libraries, which pip packages install where the system does not look for them.
_NEED_NVIDIA = (CUDA, TENSORRT)
# Without a user's own options. CUDA's arena doubles whenever it grows, so that it takes up to twice the memory that a
# model needs; and OpenVINO computes float32 graphs in bfloat16 on processors that have it.
_DEFAULT_OPTIONS: Mapping[str, Mapping[str, str]] = {
    CUDA: {"arena_extend_strategy": "kSameAsRequested"},
    OPENVINO: {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'},
}
_REPLACE = "install {0} in place of the package onnxruntime; docs/providers.md has the commands"
# Providers that other builds of onnxruntime have, and how to come by them.
_OTHER_BUILDS = {
    CUDA: _REPLACE.format("onnxruntime-gpu[cuda,cudnn]"),
    TENSORRT: _REPLACE.format("onnxruntime-gpu"),
    "DmlExecutionProvider": "onnxruntime-directml, for Windows, has it",
    "CoreMLExecutionProvider": "the package onnxruntime for macOS has it",
    "XnnpackExecutionProvider": "no package of onnxruntime for Python has it",
}


def choose(ort: Any, written: str) -> str:
    """The provider that a user means, registered if it is a plugin.

    Args:
        ort: onnxruntime.
        written: a name, see `SessionOptions`; ``auto`` is the CPU.

    Raises:
        ProviderError: there is no such provider, or its package does not work.
    """
    if written.lower() == "auto":
        return CPU
    available = ort.get_available_providers()
    for name in available:
        if is_called(name, written):
            return str(name)
    for plugin in installed_plugins():
        if is_called(plugin.provider, written):
            register(ort, plugin)
            return plugin.provider
    names = ", ".join(map(short_name, [*available, *(plugin.provider for plugin in installed_plugins())]))
    raise ProviderError(
        f"provider {written} is not available in this onnxruntime; available: {names}{_remedy(written)}"
    )


def is_for_gpu_bundles(written: str) -> bool:
    """Whether a name means a provider that bundles made for GPUs run on."""
    return any(is_called(name, written) for name in GPU_PROVIDERS)


def preload(ort: Any, provider: str) -> None:
    """Load NVIDIA's libraries from their pip packages, if the provider needs them."""
    # Builds of other vendors may lack the function.
    if provider in _NEED_NVIDIA and hasattr(ort, "preload_dlls"):
        # It prints which libraries are absent; what stops the provider is said when the session opens.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def options_of(provider: str, given: Mapping[str, str] | None, cuda_graph: bool) -> dict[str, str]:
    """The options for a provider: a user's own take precedence."""
    captured = {"enable_cuda_graph": "1"} if cuda_graph and provider == CUDA else {}
    return {**_DEFAULT_OPTIONS.get(provider, {}), **captured, **(given or {})}


def absent_providers(ort: Any) -> dict[str, str]:
    """By short name, what is missing of each provider that a package could bring here and none brings."""
    absent = {
        short_name(plugin.provider): f"not installed: pip install {plugin.package}"
        for plugin in PLUGINS.values()
        if plugin not in installed_plugins() and plugin.provider not in ort.get_available_providers()
    }
    # macOS has no CUDA.
    if CUDA not in ort.get_available_providers() and sys.platform != "darwin":
        absent[short_name(CUDA)] = f"not in this onnxruntime: {overwritten_gpu_package() or _OTHER_BUILDS[CUDA]}"
    return absent


def _remedy(written: str) -> str:
    """How to come by a provider that is not there; nothing for an unknown name."""
    for plugin in PLUGINS.values():
        if is_called(plugin.provider, written):
            return f"; pip install {plugin.package} brings it"
    for provider, remedy in _OTHER_BUILDS.items():
        if is_called(provider, written):
            return f"; {overwritten_gpu_package() or remedy}" if provider in _NEED_NVIDIA else f"; {remedy}"
    return ""


def overwritten_gpu_package() -> str | None:
    """What to say where onnxruntime-gpu is installed beside onnxruntime; None where it is not.

    The two share a folder: what was installed last counts, and the other is there by name only.
    """
    if not all(map(_is_installed, ("onnxruntime", "onnxruntime-gpu"))):
        return None
    return (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: pip uninstall -y onnxruntime, "
        "then pip install --force-reinstall --no-deps onnxruntime-gpu"
    )


def _is_installed(package: str) -> bool:
    # It takes a tenth as long to import as numpy, and few programs get here.
    from importlib import metadata

    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False
