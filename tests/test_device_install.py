"""A second virtual environment with only the device install: no torch, transformers, onnx or scipy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import triform
from triform.runtime.generation.options.generation import GenerationOptions

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, ROOT], check=True, capture_output=True)
    return folder


def run(device, *arguments):
    # Away from the checkout, so that only what was installed can be imported.
    command = [device / "bin" / "triform", *arguments]
    return subprocess.run(command, cwd=device, capture_output=True, text=True, check=True).stdout


def test_nothing_heavy_is_installed(device):
    code = "import importlib.util as u; print([n for n in ('torch','transformers','onnx','scipy') if u.find_spec(n)])"
    found = subprocess.run([device / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_and_a_generation(device, int4_bundle):
    assert "triform generate" in run(device, "--help")
    arguments = ("generate", str(int4_bundle), "The ferry", "--max-new-tokens", "16", "--temperature", "0", "--json")
    found = json.loads(run(device, *arguments))
    expected = triform.load(int4_bundle).generate("The ferry", GenerationOptions(max_new_tokens=16, temperature=0))
    assert found["token_ids"] == list(expected.token_ids)


def test_exporting_says_what_to_install(device, tmp_path):
    done = subprocess.run(
        [device / "bin" / "triform", "export", "x", "y"], cwd=device, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: exporting needs PyTorch: pip install 'triform[export]'\n"
    assert "triform[export]" in done.stderr


def test_size_on_disk_is_reported(device, capsys):
    size = sum(path.stat().st_size for path in device.rglob("*") if path.is_file() and not path.is_symlink())
    with capsys.disabled():
        print(f"\nthe device install takes {size / 1e6:.0f} MB on disk, Python itself not counted")
    # The command line, the runtime and three binary packages; torch alone would be several times this.
    assert size < 400e6
