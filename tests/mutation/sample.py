"""Runs the fitting tests on a sample of mutations: `python -m tests.mutation.sample runtime --count 60 --seed 1`.

A mutation is noticed where a test fails, or none ends in time. Those that are not are listed, to be read: some change
nothing that anybody could see. Each runs in a copy of the folders, so that the files here stay as they are.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.mutation.mutate import Mutation, mutations

ROOT = Path(__file__).parent.parent.parent
_COPIED = ("cli", "docs", "examples", "export", "models", "runtime", "src", "tests")
_SECONDS = 300
# At most so many files of tests.
_MOST_TESTS = 4


def main() -> int:
    """Run the sample; the exit code is always 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="runtime or export, or a folder in it")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = _sample(options.folder, options.count, options.seed)
    noticed = 0
    with tempfile.TemporaryDirectory() as folder:
        place = _copy(Path(folder))
        for number, (path, mutation) in enumerate(chosen, 1):
            caught = _is_noticed(place, path, mutation)
            noticed += caught
            outcome = "noticed " if caught else "SURVIVED"
            change = f"{' '.join(mutation.before.split())} -> {mutation.after}"
            print(f"{number:3} {outcome} {path}:{mutation.line} {change}", flush=True)
    print(f"{noticed} of {len(chosen)} noticed ({100 * noticed / len(chosen):.0f} %)")
    return 0


def _sample(folder: str, count: int, seed: int) -> list[tuple[Path, Mutation]]:
    everything = [
        (path.relative_to(ROOT), mutation)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for mutation in mutations(path.read_text(encoding="utf-8"))
        if tests_of(path.relative_to(ROOT))
    ]
    return random.Random(seed).sample(everything, min(count, len(everything)))


@cache
def tests_of(path: Path) -> list[str]:
    """The files of tests that fit a file: first those of its name in the folder of its name, last those far away."""
    module = "triform." + ".".join(path.with_suffix("").parts)
    own, ranked = ROOT / "tests" / path.parent, []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        near, named = test.parent == own, path.stem in test.stem
        if (near and named) or module in test.read_text(encoding="utf-8"):
            ranked.append((not named if near else 2, str(test.relative_to(ROOT))))
    return [name for _, name in sorted(ranked)][:_MOST_TESTS]


def _copy(folder: Path) -> Path:
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile", "constraints.txt"):
        shutil.copy2(ROOT / name, folder)
    for name in ("cli", "export", "models", "runtime"):
        link = folder / "src" / "triform" / name
        if not link.exists():
            link.symlink_to(f"../../{name}")
    return folder


def _is_noticed(place: Path, path: Path, mutation: Mutation) -> bool:
    original = (place / path).read_text(encoding="utf-8")
    (place / path).write_text(mutation.text, encoding="utf-8")
    command = [sys.executable, "-B", "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", *tests_of(path)]
    environment = {**os.environ, "PYTHONPATH": str(place / "src")}
    try:
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, timeout=_SECONDS, check=False)
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        (place / path).write_text(original, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
