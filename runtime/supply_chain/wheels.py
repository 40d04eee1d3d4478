"""Fetches the wheels of an installation for another platform, by pip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from triform.runtime.errors import InputError, UnsupportedError, option

_MANYLINUX = re.compile(r"manylinux_2_(\d+)_(\w+)")
# The oldest glibc whose tag pip knows by number.
_OLDEST = 17
_MISSING = re.compile(r"No matching distribution found for (?P<what>[^\s(]+)")


def fetch_wheels(wheel: Path, extras: Sequence[str], platform: str, python: str, folder: Path) -> list[Path]:
    """Download a wheel's needs for a platform, and copy the wheel beside them.

    Args:
        wheel: triform's own.
        extras: of it.
        platform: such as manylinux_2_28_aarch64; older wheels for the same processor fit, too.
        python: such as 3.11.
        folder: to write into.

    Returns:
        the wheels, sorted by name.

    Raises:
        InputError: a package has no wheel for the platform, or pip fails otherwise.
        UnsupportedError: pip is not installed.
    """
    if find_spec("pip") is None:
        raise UnsupportedError("packing needs pip, which this environment does not have; install it")
    wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", python, "--dest", str(folder), wanted,
    ]  # fmt: skip
    for tag in platform_tags(platform):
        command += ["--platform", tag]
    # A killed pip leaves its temporary folders, which the caller removes with the folder.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = {"TMPDIR": scratch, "TEMP": scratch, "TMP": scratch}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **place})
    if done.returncode:
        missing = _MISSING.search(done.stderr)
        if missing is None:
            raise InputError(f"pip cannot fetch the wheels: {_reason(done.stderr)[:300]}")
        raise InputError(
            f"{missing['what']} has no wheel for {option('platform')} {platform} and {option('python')} {python}; "
            "name another platform or Python"
        )
    return sorted(folder.glob("*.whl"))


def _reason(said: str) -> str:
    """Why pip failed: its first error, or the last line where that is a traceback, as on a full disk."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")), "no reason given")
    return lines[-1] if first == "Exception:" else first


def platform_tags(platform: str) -> list[str]:
    """The tags whose wheels run on a platform, the newest first; pip takes no other than those it is given."""
    match = _MANYLINUX.fullmatch(platform)
    if match is None:
        return [platform]
    newest, processor = int(match[1]), match[2]
    return [
        *(f"manylinux_2_{minor}_{processor}" for minor in range(newest, _OLDEST - 1, -1)),
        f"manylinux2014_{processor}",
    ]
