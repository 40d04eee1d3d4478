"""Runs the fitting tests on a sample of mutations: `python -m tests.mutation.sample runtime --count 60 --seed 1`.

A mutation is noticed where a test fails that passes without it. It is tried on the best three files of tests that call
the function it is in, or on as many as `--files` says; which do is learnt while they run. Those that are not noticed
are listed, to be read: some change nothing that anybody could see. Each runs in a copy of the folders, so that the
files here stay as they are.

Tests that do not end in time are slow, or wait for an endless loop, which everybody would notice. So they get five
times as long as they take without the mutation. Where they do not end then either, they are called endless.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.mutation.fitting import ROOT, tests_of
from tests.mutation.mutate import Mutation, mutations
from tests.mutation.reached import Reached
from tests.mutation.scopes import functions_for
from tests.mutation.trial import Exports, Outcome, run_tests

_COPIED = ("benchmarks", "cli", "docs", "examples", "export", "models", "runtime", "src", "tests")

# So many more files of tests than those that reach a mutation are run to find these.
_MOST_IN_VAIN = 5
# The best so many are tried first, whether or not it is known what they call: new ones may be among them.
_BEST = 2
# So many times as long as without a mutation may tests take before they are called endless.
_PATIENCE = 5


@dataclass(frozen=True)
class Trial:
    """How mutations are tried.

    Attributes:
        place: a copy of the repository, which is changed.
        seconds: of processor time that a file of tests may take.
        files: of tests that call the changed function, to try.
        exports: where exports come from; from the changed code when None.
        reached: what tests are known to call.
    """

    place: Path
    seconds: float
    files: int
    exports: Exports | None
    reached: Reached


def main() -> int:
    """Run the sample; the exit code is always 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="runtime or export, or a folder or file in it")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="of processor time for a file of tests")
    parser.add_argument("--files", type=int, default=3, help="of tests that call the function, to try")
    parser.add_argument("--kept", type=Path, help="a folder that keeps exports of this code for the next call")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the sample to run again")
    options = parser.parse_args()
    # onnxruntime reads it when it is imported, before Triform sets it.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    chosen = _sample(options.folder, options.count, options.seed)
    counts = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        place = _copy(Path(folder) / "changed")
        exports = Exports(_copy(Path(folder) / "clean"), options.kept or Path(folder) / "kept")
        reached = Reached(exports.kept / "reached")
        kept = exports if options.folder.startswith("runtime") else None
        trial = Trial(place, options.seconds, options.files, kept, reached)
        for number, (path, mutation) in enumerate(chosen, 1):
            if options.only and number not in options.only:
                continue
            start = time.monotonic()
            outcome, test = _outcome(trial, path, mutation)
            counts[outcome] += 1
            change = f"{' '.join(mutation.before.split())} -> {mutation.after}"
            found = f" ({test})" if test else ""
            took = f"{time.monotonic() - start:4.0f} s"
            print(f"{number:3} {outcome:9} {took} {path}:{mutation.line} {change}{found}", flush=True)
    noticed, endless = counts["noticed"], counts["endless"]
    decided = noticed + endless + counts["SURVIVED"]
    share = 100 * (noticed + endless) / max(1, decided)
    print(f"{noticed} of {decided} noticed, {endless} endless ({share:.0f} %), {counts['undecided']} undecided")
    return 0


def _sample(folder: str, count: int, seed: int) -> list[tuple[Path, Mutation]]:
    """Mutations of any file; one that no test reaches counts as not noticed."""
    files = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
    everything = [
        (path.relative_to(ROOT), mutation) for path in files for mutation in mutations(path.read_text(encoding="utf-8"))
    ]
    return random.Random(seed).sample(everything, min(count, len(everything)))


def _copy(folder: Path) -> Path:
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "constraints.txt",
                 "requirements-device.txt"):  # fmt: skip
        shutil.copy2(ROOT / name, folder)
    for name in ("cli", "export", "models", "runtime"):
        link = folder / "src" / "triform" / name
        if not link.exists():
            link.symlink_to(f"../../{name}")
    return folder


def _outcome(trial: Trial, path: Path, mutation: Mutation) -> tuple[str, str | None]:
    """noticed, endless, SURVIVED, or undecided where no tests end that pass without the mutation; what failed."""
    functions = functions_for((trial.place / path).read_text(encoding="utf-8"), mutation.line)
    tried = fitting = unfit = 0
    for test in _candidates(trial.reached, path, functions):
        if fitting == trial.files or tried == trial.files + _MOST_IN_VAIN:
            break
        if test in _unfit(trial):
            unfit += 1
            continue
        tried += 1
        outcome = _changed(trial, path, mutation, test, trial.seconds)
        if not outcome.in_time and _unchanged(trial, test).passed:
            patience = _PATIENCE * _unchanged(trial, test).seconds
            if patience > trial.seconds:
                outcome = _changed(trial, path, mutation, test, patience)
            if not outcome.in_time:
                return "endless", test
        if outcome.passed:
            trial.reached.add(test, outcome.functions)
            fitting += not functions or trial.reached.calls(test, path, functions)
        elif _unchanged(trial, outcome.failed or test).passed:
            return "noticed", outcome.failed
        else:
            unfit += 1
            _unfit(trial).add(test)
    # One that no test reaches is not noticed, either.
    return "SURVIVED" if fitting or not unfit else "undecided", None


def _changed(trial: Trial, path: Path, mutation: Mutation, test: str, seconds: float) -> Outcome:
    """How a file of tests ends with a mutation."""
    original = (trial.place / path).read_text(encoding="utf-8")
    _write(trial.place / path, mutation.text)
    try:
        return run_tests(trial.place, (test,), seconds, trial.exports, look=not trial.reached.knows(test))
    finally:
        _write(trial.place / path, original)


def _candidates(reached: Reached, path: Path, functions: frozenset[str]) -> list[str]:
    """Files of tests: the best ones, then those that are known to call the functions; none that are known not to."""
    calling = [test for test in tests_of(path) if reached.calls(test, path, functions)]
    able = [test for test in tests_of(path) if not functions or not reached.knows(test) or test in calling]
    return list(dict.fromkeys([*able[:_BEST], *calling, *able]))


@cache
def _unfit(trial: Trial) -> set[str]:
    """Files of tests that take too long, or do not pass, without any mutation."""
    return set()


@cache
def _unchanged(trial: Trial, test: str) -> Outcome:
    """How tests end without any mutation."""
    return run_tests(trial.place, (test,), trial.seconds, trial.exports)


def _write(path: Path, text: str) -> None:
    """Write a file, and remove its bytecode: a file of the same size in the same second passes as unchanged."""
    path.write_text(text, encoding="utf-8")
    for left in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        left.unlink()


if __name__ == "__main__":
    sys.exit(main())
