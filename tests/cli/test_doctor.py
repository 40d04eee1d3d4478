"""`triform doctor`: what a machine has, and which bundles fit it."""

from __future__ import annotations

import json
import os
from importlib import metadata
from types import SimpleNamespace

import onnx
import pytest

from triform.cli.commands.machine import doctor
from triform.runtime.machine import memory


def test_the_machine_and_two_bundles(call, int4_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_BESIDES", 1000)
    code, out, err = call("doctor", int4_bundle, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["versions"]["onnxruntime"] == metadata.version("onnxruntime")
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["available_memory"] <= found["memory"]
    assert found["providers"]["cpu"] is None
    (fit,) = found["bundles"]
    weights = sum((int4_bundle / name).stat().st_size for name in os.listdir(int4_bundle) if ".onnx" in name)
    assert (fit["form"], fit["memory"], fit["fits"]) == ("decoder", weights + 1000, True)
    assert fit["most_tokens_per_second"] == pytest.approx(found["memory_bandwidth"] / weights)

    monkeypatch.setattr(memory, "_meminfo", lambda key: 10)
    code, out, err = call("doctor", int4_bundle, tmp_path)
    assert (code, err) == (1, "")
    assert f"bundle {int4_bundle}" in out and "does not fit" in out
    assert f"{tmp_path} is not a bundle: it has no manifest.json" in out


def test_an_extra_that_is_missing_has_its_command(call, monkeypatch):
    version = metadata.version

    def without_pillow(name):
        if name == "pillow":
            raise metadata.PackageNotFoundError
        return version(name)

    monkeypatch.setattr(metadata, "version", without_pillow)
    code, out, err = call("doctor")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("extra image")]
    assert line.endswith("not installed: pip install 'pillow>=11'")


def test_what_a_provider_leaves_to_the_cpu(call, int4_bundle):
    """Azure's provider is in every package of onnxruntime, and runs no ordinary operator."""
    graph = onnx.load(int4_bundle / "decoder.onnx", load_external_data=False).graph
    code, out, err = call("doctor", int4_bundle, "--provider", "azure", "--json")
    assert (code, err) == (0, "")
    (left,) = json.loads(out)["bundles"][0]["left_to_cpu"].values()
    # Operators that onnxruntime does not fuse.
    for operator in ("MatMulNBits", "GroupQueryAttention"):
        assert left[operator] == sum(node.op_type == operator for node in graph.node)
    code, out, err = call("doctor", int4_bundle, "--provider", "azure")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("left to the cpu, decoder")]
    assert f"{left['MatMulNBits']} MatMulNBits" in line


@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_the_cpu_leaves_nothing_to_itself(call, int4_bundle, provider):
    code, out, err = call("doctor", int4_bundle, "--provider", provider)
    assert (code, out) == (2, "")
    assert err == f"error: --provider {provider}: the cpu runs all of a graph; name another provider\n"


def test_the_package_that_runs_graphs_is_named_whichever_it_is(call, monkeypatch):
    """onnxruntime-gpu, without the package onnxruntime."""
    real = metadata.distributions
    other = SimpleNamespace(name="onnxruntime-gpu")

    def without(**_):
        return [*(found for found in real() if found.name != "onnxruntime"), other]

    version = metadata.version
    monkeypatch.setattr(metadata, "distributions", without)
    monkeypatch.setattr(metadata, "version", lambda name: "1.31.1" if name == other.name else version(name))
    code, out, err = call("doctor", "--json")
    assert (code, err) == (0, "")
    versions = json.loads(out)["versions"]
    assert versions["onnxruntime-gpu"] == "1.31.1" and "onnxruntime" not in versions
