"""Which provider a name means, and how to come by one that is not there."""

from __future__ import annotations

import json
from importlib import metadata
from types import SimpleNamespace

import pytest

from triform.runtime.errors import ProviderError
from triform.runtime.graphs.providers import choice, plugins
from triform.runtime.graphs.providers.choice import choose, options_of, overwritten_gpu_package, preload

CPU, CUDA, OPENVINO = "CPUExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider"


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    monkeypatch.setattr(plugins, "find_spec", lambda name: None)


def ort(*available):
    return SimpleNamespace(get_available_providers=lambda: [*available, CPU])


@pytest.mark.parametrize(
    ("written", "provider"),
    [
        ("auto", CPU),
        ("CUDA", CUDA),
        ("directml", "DmlExecutionProvider"),
        ("dml", "DmlExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("coreml", "CoreMLExecutionProvider"),
    ],
)
def test_what_a_name_means(written, provider):
    there = ("TensorrtExecutionProvider", CUDA, "DmlExecutionProvider", "CoreMLExecutionProvider")
    assert choose(ort(*there), written) == provider


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("cuda", "install onnxruntime-gpu[cuda,cudnn] in place of the package onnxruntime; docs/providers.md has the"),
        ("DirectML", "onnxruntime-directml, for Windows, has it"),
        ("coreml", "the package onnxruntime for macOS has it"),
        ("xnnpack", "no package of onnxruntime for Python has it"),
        ("webgpu", "pip install onnxruntime-ep-webgpu brings it"),
        ("tensorrtrtx", "pip install onnxruntime-ep-nv-tensorrt-rtx"),
        ("qnn", "pip install onnxruntime-qnn"),
    ],
)
def test_how_to_come_by_a_provider_is_said(written, remedy):
    with pytest.raises(ProviderError) as caught:
        choose(ort(), written)
    start = f"provider {written} is not available in this onnxruntime; available: cpu; "
    assert str(caught.value).startswith(start + remedy)


def test_of_an_unknown_name_no_remedy_is_said():
    with pytest.raises(ProviderError, match=r"provider npu is not available in this onnxruntime; available: cpu$"):
        choose(ort(), "npu")


def test_a_package_that_another_overwrote_is_noticed(monkeypatch):
    installed = {"onnxruntime", "onnxruntime-gpu"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError
        return "1.31.1"

    monkeypatch.setattr(metadata, "version", version)
    said = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: pip uninstall -y onnxruntime"
    with pytest.raises(ProviderError, match=said):
        choose(ort(), "cuda")
    installed.remove("onnxruntime")
    assert overwritten_gpu_package() is None


def test_options_of_a_user_come_before_the_defaults():
    assert options_of(CUDA, {"arena_extend_strategy": "kNextPowerOfTwo"}, True) == {
        "arena_extend_strategy": "kNextPowerOfTwo",
        "enable_cuda_graph": "1",
    }
    assert json.loads(options_of(OPENVINO, {"cache_dir": "here"}, False)["load_config"]) == {
        "CPU": {"INFERENCE_PRECISION_HINT": "f32"}
    }
    assert options_of(OPENVINO, {"load_config": "{}"}, False) == {"load_config": "{}"}
    assert options_of("DmlExecutionProvider", {"device_id": "1"}, True) == {"device_id": "1"}
    assert options_of("DmlExecutionProvider", None, True) == {}
    assert "enable_cuda_graph" not in options_of(CUDA, None, False)


@pytest.mark.parametrize(
    ("provider", "needed"),
    [
        (CUDA, True),
        ("TensorrtExecutionProvider", True),
        ("CPUExecutionProvider", False),
        ("DmlExecutionProvider", False),
    ],
)
def test_libraries_of_nvidia_are_loaded_for_its_providers(provider, needed, capsys):
    calls = []
    preload(SimpleNamespace(preload_dlls=lambda: calls.append(provider) or print("a library is absent")), provider)
    assert calls == [provider] * needed and capsys.readouterr().out == ""
    # Builds of other vendors lack the function.
    preload(SimpleNamespace(), provider)


@pytest.mark.parametrize(
    ("platform", "available", "said"),
    [("linux", [], True), ("darwin", [], False), ("linux", [CUDA], False), ("darwin", [CUDA], False)],
)
def test_cuda_is_absent_where_it_could_be(monkeypatch, platform, available, said):
    """macOS has none."""
    monkeypatch.setattr(choice, "sys", SimpleNamespace(platform=platform))
    found = choice.absent_providers(SimpleNamespace(get_available_providers=lambda: available))
    assert ("cuda" in found) is said
