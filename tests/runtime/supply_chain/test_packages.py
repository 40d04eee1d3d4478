"""The packages of an installation, and of a requirements file with hashes."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from triform.runtime.errors import InputError
from triform.runtime.supply_chain.packages import installed_packages, locked_packages

ROOT = Path(__file__).parents[3]
A, B = 64 * "a", 64 * "b"


def test_installed_packages_are_what_triform_needs_and_nothing_of_its_extras():
    needed = {"triform"}
    while True:
        requirements = [Requirement(text) for name in needed for text in metadata.distribution(name).requires or []]
        found = {
            canonicalize_name(requirement.name)
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        }
        if found <= needed:
            break
        needed |= found
    packages = {package.name: package for package in installed_packages()}
    assert set(packages) >= needed
    # Only what other platforms need may be listed besides; none of the extras may.
    assert not {"torch", "transformers", "pillow", "soundfile", "cyclonedx-python-lib"} & set(packages)
    assert all(package.version == metadata.version(name) for name, package in packages.items())
    assert {"numpy", "onnxruntime", "tokenizers", "typer", "minijinja", "rich"} <= set(packages["triform"].requires)
    assert all(set(package.requires) <= set(packages) for package in packages.values())


def test_the_device_requirements_are_read_whole():
    text = (ROOT / "requirements-device.txt").read_text()
    packages = locked_packages(ROOT / "requirements-device.txt")
    assert len(packages) == text.count("==")
    assert sum(len(package.hashes) for package in packages) == text.count("--hash=sha256:")


def test_a_requirements_file(tmp_path):
    path = tmp_path / "lock.txt"
    path.write_bytes(
        f"# made by hand\r\n\r\nBar.Baz==2.0 \\\r\n    --hash=sha256:{A} \\\r\n    --hash=sha256:{B}\r\n"
        f"foo_bar==1!1.0+cpu --hash=sha256:{B}\n".encode()
    )
    found = [(package.name, package.version, package.hashes) for package in locked_packages(path)]
    assert found == [("bar-baz", "2.0", [A, B]), ("foo-bar", "1!1.0+cpu", [B])]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"foo>=1 --hash=sha256:{A}", "foo>=1"),
        ("foo==1", "foo==1"),
        (f"foo==1 --hash=sha256:{A[:-1]}", "foo==1"),
        (f"foo==1 --hash=md5:{A}", "md5"),
        ("-r other.txt", "-r other.txt"),
        (f"foo @ file:///tmp/x --hash=sha256:{A}", "foo @"),
        (f"foo==1 --hash=sha256:{A}\nFoo==2 --hash=sha256:{B}", "names foo twice"),
        ("# nothing\n", "names no package"),
        ("", "names no package"),
    ],
)
def test_other_lines_are_refused_by_what_they_say(tmp_path, text, said):
    (tmp_path / "lock.txt").write_text(text)
    with pytest.raises(InputError) as failure:
        locked_packages(tmp_path / "lock.txt")
    assert said in str(failure.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    for path, said in (
        (tmp_path, "cannot be read"),
        (tmp_path / "no", "cannot be read"),
        (tmp_path / "binary.txt", "UTF-8"),
    ):
        with pytest.raises(InputError, match=said):
            locked_packages(path)
