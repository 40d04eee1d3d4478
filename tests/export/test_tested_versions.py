"""What an export says of packages that are newer than what it was tested with."""

from __future__ import annotations

from importlib import metadata

import pytest

from triform.export.tested_versions import installed_versions, newer_than_tested, read_tested_versions
from triform.runtime.bundle.export_record import NewerVersion


@pytest.fixture
def installed(monkeypatch):
    """Lets packages seem to be installed in versions that a test chooses; the others in the tested ones."""

    def choose(**versions):
        known = {**read_tested_versions(), **versions}

        def version(name):
            if known[name] is None:
                raise metadata.PackageNotFoundError(name)
            return known[name]

        monkeypatch.setattr(metadata, "version", version)

    return choose


def test_the_tested_versions_are_not_newer(installed):
    installed()
    assert newer_than_tested() == {}
    assert installed_versions() == read_tested_versions()


@pytest.mark.parametrize(
    ("version", "newer"),
    [
        ("9.0", True),
        ("2.14.0", True),
        ("2.13.0.post1", True),
        ("2.100.0", True),
        ("2.13.0+cpu", False),
        ("2.13", False),
        ("2.9.1", False),
        ("2.13.0rc1", False),
    ],
)
def test_which_versions_are_newer(installed, monkeypatch, version, newer):
    """By the order of versions that Python's packaging specification gives."""
    monkeypatch.setattr("triform.export.tested_versions.read_tested_versions", lambda: {"torch": "2.13.0"})
    installed(torch=version)
    assert newer_than_tested() == ({"torch": NewerVersion(version, "2.13.0")} if newer else {})


def test_what_is_not_installed_is_left_out(installed):
    installed(gguf=None)
    assert "gguf" not in installed_versions()
    assert newer_than_tested() == {}
