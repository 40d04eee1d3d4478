"""A second virtual environment with only the device install: no torch, transformers, onnx or scipy."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

import triform
from tests.helpers.wheels import ROOT
from triform.runtime.generation.options.generation import GenerationOptions

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def device(tmp_path_factory, wheel):
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # The same versions as here, whether those are the constraints' or the newest.
    freeze = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    (folder / "versions.txt").write_bytes(subprocess.run(freeze, check=True, capture_output=True).stdout)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", folder / "versions.txt"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    return folder


def run(device, *arguments):
    # Away from the checkout, so that only what was installed can be imported.
    command = [device / "bin" / "triform", *arguments]
    return subprocess.run(command, cwd=device, capture_output=True, text=True, check=True).stdout


def check_command(command, extra):
    """It installs what pyproject.toml lists for an extra, and a shell hands it to pip as it is meant."""
    pip, install, *packages = shlex.split(command)
    assert [pip, install] == ["pip", "install"]
    assert [Requirement(package) for package in packages] == [Requirement(package) for package in EXTRAS[extra]]


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
    need, command = done.stderr.removesuffix("\n").rsplit(": ", 1)
    assert need == "error: exporting needs PyTorch"
    check_command(command, "export")


def test_what_every_extra_needs_is_named_from_a_wheel(device):
    """As pip takes it, by the wheel's own metadata."""
    code = "import sys; from triform.runtime.extras import install_command as c; [print(c(e)) for e in sys.argv[1:]]"
    command = [device / "bin" / "python", "-c", code, *EXTRAS]
    done = subprocess.run(command, cwd=device, capture_output=True, text=True, check=True)
    for extra, line in zip(EXTRAS, done.stdout.splitlines(), strict=True):
        check_command(line, extra)


def test_size_on_disk_is_reported(device, capsys):
    size = sum(path.stat().st_size for path in device.rglob("*") if path.is_file() and not path.is_symlink())
    with capsys.disabled():
        print(f"\nthe device install takes {size / 1e6:.0f} MB on disk, Python itself not counted")
    # The command line, the runtime and three binary packages; torch alone would be several times this.
    assert size < 400e6
