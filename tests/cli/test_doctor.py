"""`triform doctor`: what a machine has, and which bundles fit it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import onnx
import pytest

from triform.cli.commands.machine import doctor, loading_memory
from triform.runtime.machine import memory

PEAK = """
import sys, triform
model = triform.load(sys.argv[1])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
"""


def test_the_machine_and_two_bundles(call, int4_bundle, tmp_path, monkeypatch):
    code, out, err = call("doctor", int4_bundle, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["versions"]["onnxruntime"] == metadata.version("onnxruntime")
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["available_memory"] <= found["memory"]
    assert found["providers"]["cpu"] is None
    (fit,) = found["bundles"]
    weights = sum((int4_bundle / name).stat().st_size for name in os.listdir(int4_bundle) if ".onnx" in name)
    assert (fit["form"], fit["measured"], fit["fits"]) == ("decoder", True, True)
    done = subprocess.run([sys.executable, "-c", PEAK, int4_bundle], capture_output=True, text=True, check=True)
    assert fit["memory"] == pytest.approx(1024 * int(done.stdout), rel=0.1)
    assert fit["most_tokens_per_second"] == pytest.approx(found["memory_bandwidth"] / weights)

    (tmp_path / "meminfo").write_text("MemAvailable: 10 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(doctor, "_BESIDES", 10**9)
    code, out, err = call("doctor", int4_bundle, tmp_path)
    assert (code, err) == (1, "")
    # What cannot fit is not loaded.
    shown = f"does not fit, needs {(weights + 10**9) / 1e9:.2f} GB or more"
    assert f"bundle {int4_bundle}" in out and shown in out
    assert f"{tmp_path} is not a bundle: it has no manifest.json" in out


def test_a_bundle_that_cannot_be_loaded(call, own_bundle):
    data = own_bundle / "decoder.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    code, out, err = call("doctor", own_bundle)
    assert (code, err) == (1, "")
    assert out.splitlines()[-1].endswith(f"{data} is damaged: its SHA-256 differs; copy the bundle again")


def test_a_process_that_ends_while_it_loads(call, int4_bundle, monkeypatch):
    monkeypatch.setattr(loading_memory, "_CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    code, out, err = call("doctor", int4_bundle, "--json")
    assert (code, err) == (0, "")
    (fit,) = json.loads(out)["bundles"]
    assert (fit["measured"], fit["fits"]) == (False, False)


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
