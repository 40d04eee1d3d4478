"""A bill of materials: CycloneDX's own schema accepts it, and it says what the folder holds."""

from __future__ import annotations

import hashlib
import json
import re
import sys

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.helpers.bundles import change, read_manifest_json
from triform import __version__
from triform.cli.main import run
from triform.cli.outputs.sbom import bill_of_materials
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import UnsupportedError
from triform.runtime.extras import install_command
from triform.runtime.supply_chain.packages import Package, installed_packages

PACKAGES = [
    Package("numpy", "2.4.0", [64 * "a", 64 * "b"]),
    Package("onnxruntime", "1.32.0", [64 * "c"], ["numpy"]),
]


def valid(text):
    """The document, if the schema of CycloneDX 1.6 accepts it."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    return document


def by_reference(document):
    return {component["bom-ref"]: component for component in document["components"]}


def test_files_have_the_hashes_of_their_contents(sentence_bundle):
    components = by_reference(valid(bill_of_materials(open_bundle(sentence_bundle), PACKAGES)))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sentence_bundle.iterdir()}
    assert {
        component["name"]: component["hashes"] for component in components.values() if component["type"] == "file"
    } == {name: [{"alg": "SHA-256", "content": digest}] for name, digest in files.items()}


def test_the_model_and_how_its_weights_are_stored(int4_bundle):
    manifest = read_manifest_json(int4_bundle)
    model = by_reference(valid(bill_of_materials(open_bundle(int4_bundle), [])))["model"]
    assert model["type"] == "machine-learning-model"
    assert model["name"] == manifest["model_name"]
    assert model["modelCard"] == {"modelParameters": {"task": "text-generation", "architectureFamily": "llama"}}
    properties = {entry["name"]: entry["value"] for entry in model["properties"]}
    assert properties["triform:graph:decoder:quantization"] == "int4"
    assert properties["triform:graph:decoder:block_size"] == "32"
    assert properties["triform:parameters"] == str(manifest["parameters"])
    assert "licenses" not in model


@pytest.mark.parametrize(
    ("name", "written"),
    [
        # Identifiers of SPDX in any case, expressions of some, and names that SPDX does not have.
        ("apache-2.0", {"license": {"id": "Apache-2.0"}}),
        ("MIT OR Apache-2.0", {"expression": "MIT OR Apache-2.0"}),
        ("gemma", {"license": {"name": "gemma"}}),
    ],
)
def test_license_and_place_of_the_checkpoint(own_bundle, name, written):
    origin = {"repository": "org/tiny-llama", "revision": 40 * "1", "license": name}
    change(own_bundle, export={**read_manifest_json(own_bundle)["export"], "origin": origin})
    model = by_reference(valid(bill_of_materials(open_bundle(own_bundle), [])))["model"]
    [license_] = model["licenses"]
    license_.pop("acknowledgement", None)
    assert license_ == written
    assert model["version"] == 40 * "1"
    assert model["externalReferences"] == [{"type": "distribution", "url": "hf://org/tiny-llama"}]


def test_packages_and_what_needs_what(own_bundle):
    document = valid(bill_of_materials(open_bundle(own_bundle), PACKAGES))
    components = by_reference(document)
    numpy = components["pkg:pypi/numpy@2.4.0"]
    [release] = numpy["externalReferences"]
    assert sorted(entry["content"] for entry in release["hashes"]) == [64 * "a", 64 * "b"]
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert needs["bundle"] == ["model", "triform"]
    assert needs["triform"] == ["pkg:pypi/numpy@2.4.0", "pkg:pypi/onnxruntime@1.32.0"]
    assert needs["pkg:pypi/onnxruntime@1.32.0"] == ["pkg:pypi/numpy@2.4.0"]
    assert document["metadata"]["component"]["name"] == own_bundle.name


def test_the_command(own_bundle, capsys, tmp_path):
    assert run(["inspect", str(own_bundle), "--sbom"]) == 0
    listed = by_reference(valid(capsys.readouterr().out))
    assert {f"pkg:pypi/{package.name}@{package.version}" for package in installed_packages()} - {
        f"pkg:pypi/triform@{__version__}"
    } <= set(listed)
    lock = tmp_path / "lock.txt"
    lock.write_text(f"numpy==2.4.0 --hash=sha256:{64 * 'a'}\n")
    assert run(["inspect", str(own_bundle), "--sbom", "--requirements", str(lock)]) == 0
    assert [ref for ref in by_reference(valid(capsys.readouterr().out)) if ref.startswith("pkg:")] == [
        "pkg:pypi/numpy@2.4.0"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sbom", "--json"], "give one of them"),
        (["--requirements", "lock.txt"], "--requirements is for --sbom"),
        (["--sbom", "--requirements", "no-such-file.txt"], "no-such-file.txt cannot be read"),
    ],
)
def test_options_that_do_not_go_together(own_bundle, capsys, arguments, said):
    assert run(["inspect", str(own_bundle), *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_without_the_library_the_command_that_installs_it_is_named(own_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "cyclonedx.output.json", None)
    with pytest.raises(UnsupportedError, match=re.escape(f"needs cyclonedx-python-lib: {install_command('sbom')}")):
        bill_of_materials(open_bundle(own_bundle), [])
