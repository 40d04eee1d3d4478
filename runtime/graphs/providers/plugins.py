"""Providers that packages of their own bring, for any onnxruntime: registering one, and choosing its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from triform.runtime.errors import InputError, ProviderError, option
from triform.runtime.graphs.providers.failures import first_line, known_cause
from triform.runtime.graphs.providers.names import OPENVINO, short_name

# The option that chooses among a plugin's devices; onnxruntime has no name for it.
DEVICE = "device_type"


@dataclass(frozen=True)
class Plugin:
    """A provider that comes in a package of its own.

    Attributes:
        provider: its name, as onnxruntime spells it.
        package: the package's name, as pip spells it.
        module: what Python imports; it says where the library is.
        needs: what it needs of the machine, for messages.
    """

    provider: str
    package: str
    module: str
    needs: str


PLUGINS = {
    plugin.provider: plugin
    for plugin in (
        Plugin(
            "WebGpuExecutionProvider",
            "onnxruntime-ep-webgpu",
            "onnxruntime_ep_webgpu",
            "a GPU and a driver for Vulkan, Direct3D 12 or Metal",
        ),
        Plugin(
            OPENVINO,
            "onnxruntime-ep-openvino",
            "onnxruntime_ep_openvino",
            "a processor, GPU or NPU by Intel",
        ),
        Plugin(
            "NvTensorRTRTXExecutionProvider",
            "onnxruntime-ep-nv-tensorrt-rtx",
            "onnxruntime_ep_nv_tensorrt_rtx",
            "an NVIDIA GPU of the RTX 30 series or later, and its driver",
        ),
        Plugin("QNNExecutionProvider", "onnxruntime-qnn", "onnxruntime_qnn", "a Snapdragon processor by Qualcomm"),
    )
}
# Those that are registered: to register a library again can end the process.
_registered: set[str] = set()


def installed_plugins() -> list[Plugin]:
    """The plugins whose packages are installed."""
    return [plugin for plugin in PLUGINS.values() if find_spec(plugin.module)]


def register(ort: Any, plugin: Plugin) -> None:
    """Make an installed plugin known to onnxruntime, once in a process.

    Raises:
        ProviderError: its library cannot be loaded, lacks the driver, or is for another onnxruntime.
    """
    if plugin.provider in _registered or plugin.provider in ort.get_available_providers():
        return
    try:
        library = import_module(plugin.module).get_library_path()
        ort.register_execution_provider_library(plugin.provider, library)
    except Exception as error:  # the package's own, or onnxruntime's, which share no base class
        fault = known_cause(error) or (
            f"the package {plugin.package} does not work with onnxruntime {ort.__version__}: {first_line(error)}"
        )
        raise ProviderError(f"provider {short_name(plugin.provider)} could not start: {fault}") from error
    _registered.add(plugin.provider)


def plugin_of(ort: Any, provider: str) -> Plugin | None:
    """The plugin that brings a provider; None if the provider is built into this onnxruntime."""
    if provider in _registered or any(device.ep_name == provider for device in ort.get_ep_devices()):
        return PLUGINS.get(provider)
    return None


def use_plugin(ort: Any, settings: Any, plugin: Plugin, options: Mapping[str, str]) -> None:
    """Let a session run on one device of a registered plugin.

    Args:
        ort: onnxruntime.
        settings: onnxruntime.SessionOptions, which this changes.
        plugin: the plugin.
        options: its options. ``device_type`` (cpu, gpu or npu) chooses among several devices and is not passed on.

    Raises:
        ProviderError: it has no device on this machine.
        InputError: it has no device of that type.
    """
    devices = [device for device in ort.get_ep_devices() if device.ep_name == plugin.provider]
    name = short_name(plugin.provider)
    if not devices:
        raise ProviderError(f"provider {name} has no device on this machine; it needs {plugin.needs}")
    wanted = options.get(DEVICE)
    by_type = {device.device.type.name.lower(): device for device in reversed(devices)}
    if wanted is not None and wanted.lower() not in by_type:
        raise InputError(
            f"{option('provider_options')} {DEVICE}={wanted}: provider {name} has only {', '.join(sorted(by_type))}"
        )
    device = devices[0] if wanted is None else by_type[wanted.lower()]
    settings.add_provider_for_devices([device], {key: value for key, value in options.items() if key != DEVICE})
