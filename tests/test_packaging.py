"""What the wheel holds."""

from __future__ import annotations

import tomllib
import zipfile

from tests.helpers.wheels import ROOT, tracked


def test_the_wheel_holds_exactly_what_git_tracks(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name.removeprefix("src/") for name in tracked("src")}
    expected |= {f"triform/{name}" for name in tracked("cli", "export", "models", "runtime")}
    assert packed == expected


def test_the_packages_are_listed_in_order():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = tracked("cli", "export", "models", "runtime")
    folders = {name.rpartition("/")[0] for name in files if name.endswith("/__init__.py")}
    assert setuptools["packages"] == ["triform", *sorted(f"triform.{folder.replace('/', '.')}" for folder in folders)]
