"""The versions of other packages that this release was tested with, and which installed ones are newer."""

from __future__ import annotations

import importlib.metadata
from importlib import resources

from packaging.version import Version

from triform.runtime.bundle.export_record import NewerVersion


def read_tested_versions() -> dict[str, str]:
    """The versions that `make test` has, of the packages that decide what an export does; by package."""
    text = resources.files("triform.export").joinpath("tested_versions.txt").read_text(encoding="utf-8")
    return dict(line.split("==") for line in text.splitlines())


def installed_versions() -> dict[str, str]:
    """The versions that are installed, of the same packages; by package. Those that are missing are left out."""
    versions = {}
    for package in read_tested_versions():
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def newer_than_tested() -> dict[str, NewerVersion]:
    """The installed packages that are newer than what this release was tested with; by package."""
    tested = read_tested_versions()
    return {
        package: NewerVersion(installed, tested[package])
        for package, installed in installed_versions().items()
        # A build's own label, such as the +cpu of 2.13.0+cpu, is no newer version.
        if Version(Version(installed).public) > Version(tested[package])
    }
