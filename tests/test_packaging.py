"""What the wheel holds."""

from __future__ import annotations

import zipfile

from tests.helpers.wheels import tracked


def test_the_wheel_holds_exactly_what_git_tracks(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name.removeprefix("src/") for name in tracked("src")}
    expected |= {f"triform/{name}" for name in tracked("cli", "export", "models", "runtime")}
    assert packed == expected
