"""The versions that everything is tested with: one file, which fits the ranges and what is installed from it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from triform.export.tested_versions import read_tested_versions

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Extras whose packages `make test` does not install: they need a GPU or a processor that not every machine has, or are
# large and have tests of their own, which are run by hand.
NOT_INSTALLED = {"cuda", "webgpu", "openvino", "cluster"}
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *(EXTRAS[name] for name in sorted(EXTRAS.keys() - NOT_INSTALLED)))
    for text in group
    if not text.startswith("triform[")
]

# A build of PyTorch for GPUs brings them, and asks for versions of its own.
GPU_LIBRARIES = ("nvidia-", "cuda-", "triton")


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def pins():
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in constraints()}


def test_every_line_is_one_version_of_any_build():
    assert constraints()
    for pin in constraints():
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)), pin
        assert pin.marker is None, "constraints that hold for some Pythons only would be lost by `make constraints`"


def test_what_triform_asks_for_has_a_version_in_its_range():
    versions = pins()
    for requirement in REQUIREMENTS:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_what_a_package_of_that_version_needs_has_a_version_too():
    versions = pins()
    missing = []
    for name, version in versions.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if installed.version.partition("+")[0] == version:
            needed = [Requirement(text) for text in installed.requires or []]
            names = [canonicalize_name(one.name) for one in needed if one.marker is None or one.marker.evaluate()]
            missing += [
                f"{other}, which {name} needs"
                for other in names
                if other not in versions and not other.startswith(GPU_LIBRARIES)
            ]
    assert not missing


def test_the_installed_package_knows_the_versions_that_decide_what_an_export_does():
    versions = pins()
    assert read_tested_versions() == {name: versions[name] for name in read_tested_versions()}
    asked = {"torch", "transformers", "onnxruntime", "onnx", "onnxscript", "onnx-ir", "optimum", "tokenizers"}
    assert set(read_tested_versions()) == asked | {"gguf", "safetensors", "numpy"}


def test_every_way_to_install_uses_the_constraints():
    makefile, readme = (ROOT / "Makefile").read_text(), (ROOT / "README.md").read_text()
    assert "CONSTRAINTS := constraints.txt" in makefile
    # The one line that installs; all others use it.
    assert re.findall(r"^.*pip\) install.*$|^.*\$\(PIP\) install.*$", makefile, re.MULTILINE) == [
        "INSTALL := $(PIP) install --quiet $(addprefix --constraint ,$(CONSTRAINTS))"
    ]
    installs = re.findall(r"pip install [^\n`#]*", readme)
    assert len(installs) >= 2
    assert all(install.startswith("pip install -c constraints.txt ") for install in installs), installs


def device_requirements():
    """From each name in requirements-device.txt to its version and its hashes."""
    text = (ROOT / "requirements-device.txt").read_text()
    entries = re.findall(r"^([\w.-]+)==(\S+) ((?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+)$", text, re.MULTILINE)
    # Nothing but these, and comments.
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == sum(1 + hashes.count("sha256:") for _, _, hashes in entries)
    return {canonicalize_name(name): (version, hashes) for name, version, hashes in entries}


def test_a_device_installs_these_versions_by_their_hashes():
    listed, versions = device_requirements(), pins()
    assert {name: version for name, (version, _) in listed.items()} == {name: versions[name] for name in listed}
    needed = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    while needed - set(listed) or any(_needs(name) - needed for name in needed):
        assert needed <= set(listed), needed - set(listed)
        needed |= set().union(*map(_needs, needed))


def _needs(name):
    """The packages that an installed one asks for here."""
    requirements = [Requirement(text) for text in metadata.distribution(name).requires or []]
    return {canonicalize_name(one.name) for one in requirements if one.marker is None or one.marker.evaluate()}
