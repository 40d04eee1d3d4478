"""Triform's wheel, as `make wheel` builds it from a clean clone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tracked(*folders):
    """The files of some folders that git tracks, from the top of the repository."""
    done = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def build_wheel(folder):
    """Build the wheel in `folder`, from a copy: neither git-ignored links nor old build folders can lend a file."""
    source = folder / "source"
    for name in tracked("src", "cli", "export", "models", "runtime", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
