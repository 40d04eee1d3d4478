"""Providers that packages of their own bring, by a package that only says where its library is."""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from triform.runtime.errors import InputError, ProviderError
from triform.runtime.graphs.providers import plugins
from triform.runtime.graphs.providers.plugins import PLUGINS, plugin_of, use_plugin
from triform.runtime.graphs.session import open_session, provider_problems

WEBGPU, OPENVINO = "WebGpuExecutionProvider", "OpenVINOExecutionProvider"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The WebGPU plugin's package, and what onnxruntime is told of it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "onnxruntime_ep_webgpu.py").write_text("def get_library_path():\n    return 'webgpu.so'\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plugins, "_registered", set())
    registered = []
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda *told: registered.append(told))
    yield registered
    sys.modules.pop("onnxruntime_ep_webgpu", None)


def device(provider, kind):
    return SimpleNamespace(ep_name=provider, device=SimpleNamespace(type=SimpleNamespace(name=kind)))


@pytest.fixture
def gpu(package, monkeypatch):
    """A device of the plugin; sessions on it run on the CPU, and say otherwise."""
    chosen, real = [], onnxruntime.InferenceSession
    gpu = device(WEBGPU, "GPU")
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [device("CPUExecutionProvider", "CPU"), gpu])

    def opens(path, settings, providers, **more):
        session = real(path, onnxruntime.SessionOptions(), providers=["CPUExecutionProvider"], **more)
        if providers is None:
            node = SimpleNamespace(op_type="Add")
            part = SimpleNamespace(ep_name=WEBGPU, get_nodes=lambda: [node])
            session.get_providers = lambda: [WEBGPU, "CPUExecutionProvider"]
            session.get_provider_graph_assignment_info = lambda: [part]
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", opens)
    monkeypatch.setattr(onnxruntime.SessionOptions, "add_provider_for_devices", lambda self, *told: chosen.append(told))
    return SimpleNamespace(device=gpu, chosen=chosen)


@pytest.mark.parametrize("name", ["webgpu", "WebGPU", WEBGPU])
def test_a_plugin_is_used_like_a_provider_of_onnxruntime(graph, package, gpu, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = open_session(graph, provider=name, provider_options={"enableGraphCapture": "1"})
    assert package == [(WEBGPU, "webgpu.so")]
    assert gpu.chosen == [([gpu.device], {"enableGraphCapture": "1"})]
    assert session.get_providers()[0] == WEBGPU
    (doubled,) = session.run(None, {"x": np.array([1.5, -2], np.float32)})
    assert doubled.tolist() == [3, -4]


@pytest.mark.usefixtures("gpu")
def test_a_library_is_registered_once(graph, package):
    """The plugin ends the process if it is registered again."""
    for _ in range(2):
        open_session(graph, provider="webgpu")
    assert len(package) == 1


@pytest.mark.usefixtures("package")
def test_a_machine_without_a_device_is_told_what_is_needed(graph):
    said = (
        "^provider webgpu has no device on this machine; it needs a GPU and a driver for Vulkan, Direct3D 12 or Metal$"
    )
    with pytest.raises(ProviderError, match=said):
        open_session(graph, provider="webgpu")


def test_a_package_that_does_not_fit_onnxruntime_is_named(graph, package, monkeypatch):
    def refuse(*_):
        raise RuntimeError('ORT runtime version "1.23.0" is below the minimum required version "1.24.4"\nand a trace')

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", refuse)
    with pytest.raises(ProviderError) as caught:
        open_session(graph, provider="webgpu")
    assert str(caught.value) == (
        "provider webgpu could not start: the package onnxruntime-ep-webgpu does not work with onnxruntime "
        f'{onnxruntime.__version__}: ORT runtime version "1.23.0" is below the minimum required version "1.24.4"'
    )


def test_a_package_whose_library_lacks_the_driver_says_so(graph, monkeypatch, package):
    def refuse(*_):
        raise RuntimeError(
            "Failed to load library webgpu.so with error: libvulkan.so.1: cannot open shared object file"
        )

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", refuse)
    with pytest.raises(ProviderError, match=r"^provider webgpu could not start: the system has no libvulkan\.so\.1$"):
        open_session(graph, provider="webgpu")


@pytest.mark.parametrize(
    ("options", "kind", "passed"),
    [
        ({}, "CPU", {}),
        ({"device_type": "GPU", "load_config": "c.json"}, "GPU", {"load_config": "c.json"}),
        ({"device_type": "npu"}, "NPU", {}),
    ],
)
def test_one_of_several_devices_is_chosen_by_its_type(options, kind, passed):
    chosen = []
    ort = SimpleNamespace(get_ep_devices=lambda: [device(OPENVINO, kind) for kind in ("CPU", "GPU", "NPU", "GPU")])
    settings = SimpleNamespace(add_provider_for_devices=lambda devices, given: chosen.append((devices, given)))
    use_plugin(ort, settings, PLUGINS[OPENVINO], options)
    (((used,), given),) = chosen
    assert (used.device.type.name, given) == (kind, passed)


def test_a_type_of_device_that_is_not_there_is_refused():
    ort = SimpleNamespace(get_ep_devices=lambda: [device(OPENVINO, "CPU"), device(OPENVINO, "GPU")])
    with pytest.raises(InputError, match=r"^`provider_options` device_type=npu: provider openvino has only cpu, gpu$"):
        use_plugin(ort, SimpleNamespace(), PLUGINS[OPENVINO], {"device_type": "npu"})


@pytest.mark.usefixtures("gpu")
def test_a_plugin_is_listed_among_the_providers():
    assert provider_problems()["webgpu"] is None


@pytest.mark.usefixtures("package")
def test_a_plugin_without_a_device_is_listed_with_what_it_needs():
    assert provider_problems()["webgpu"].endswith("it needs a GPU and a driver for Vulkan, Direct3D 12 or Metal")


def test_plugins_that_are_not_installed_are_listed_with_how_to_get_them(monkeypatch):
    monkeypatch.setattr(plugins, "find_spec", lambda name: None)
    listed = provider_problems()
    assert listed["openvino"] == "not installed: pip install onnxruntime-ep-openvino"
    assert listed["nvtensorrtrtx"] == "not installed: pip install onnxruntime-ep-nv-tensorrt-rtx"
    assert listed["cuda"].startswith("not in this onnxruntime: install onnxruntime-gpu[cuda,cudnn] in place of")


def test_whose_a_provider_is(monkeypatch):
    """A plugin's where one was registered or brings a device of it; onnxruntime's own otherwise."""
    monkeypatch.setattr(plugins, "_registered", set())

    def found(provider, *devices):
        return plugin_of(SimpleNamespace(get_ep_devices=lambda: [device(name, "GPU") for name in devices]), provider)

    assert found(WEBGPU, "CPUExecutionProvider", WEBGPU).provider == WEBGPU
    assert found(WEBGPU) is None and found(WEBGPU, "CPUExecutionProvider", OPENVINO) is None
    plugins._registered.add(OPENVINO)
    assert found(OPENVINO).provider == OPENVINO
    assert found("CPUExecutionProvider", "CPUExecutionProvider") is None
