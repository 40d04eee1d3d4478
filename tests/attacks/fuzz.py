"""Attacks every target for as long as asked: `python -m tests.attacks.fuzz --seconds 600 [TARGET ...]`.

atheris chooses the bytes by the lines of Triform that they reach, in a process for each target. Where atheris is not
installed, they are random, from a seed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

# Bytes that describe the edits of a case.
_LONGEST = 96
_CASES = re.compile(r"stat::number_of_executed_units:\s+(\d+)|^(\d+) cases$", re.MULTILINE)
# A case that takes longer, or more memory, is a defect.
_SECONDS, _MEGABYTES = 20, 4096


def main() -> int:
    """Fuzz all targets, or those that are named; the exit code is 1 if one has a defect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="all if none is named")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="a folder that keeps the cases which reach new lines")
    parser.add_argument("--repeat", type=Path, help="a file with one case, of the one target that is named")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside or options.repeat:
        return _attack(options)
    return _report(options)


def _report(options: argparse.Namespace) -> int:
    from tests.attacks.targets import TARGETS

    names = options.targets or list(TARGETS)
    total, failed = 0, []
    for name in names:
        start = time.perf_counter()
        command = [sys.executable, "-m", "tests.attacks.fuzz", name, "--inside", "--seed", str(options.seed)]
        command += ["--seconds", str(max(1, options.seconds // len(names)))]
        if options.corpus is not None:
            command += ["--corpus", str(options.corpus / name)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        counts = _CASES.findall(done.stdout)
        cases = int("".join(counts[-1])) if counts else 0
        total += cases
        took = time.perf_counter() - start
        print(f"{name:16} {cases:9,} cases {took:7.0f} s  {'DEFECT' if done.returncode else 'ok'}", flush=True)
        if done.returncode:
            failed.append(name)
            print("\n".join(done.stdout.splitlines()[-40:]), flush=True)
    print(f"{total:,} cases, {len(failed)} of {len(names)} targets with a defect {' '.join(failed)}")
    return 1 if failed else 0


def _attack(options: argparse.Namespace) -> int:
    """One target, in this process."""
    warnings.filterwarnings("ignore")
    if options.repeat is None and find_spec("atheris") is not None:
        import atheris

        with atheris.instrument_imports(include=["triform"]):
            # What a target imports when it first runs is instrumented only if it is imported here.
            _warm(options.targets[0])
    from tests.attacks.targets import TARGETS, attempt

    target = TARGETS[options.targets[0]]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        if options.repeat is not None:
            print(attempt(target, options.repeat.read_bytes(), Path(folder)))
            return 0
        if find_spec("atheris") is None:
            return _random(lambda data: attempt(target, data, Path(folder)), options)
        arguments = ["fuzz", f"-max_total_time={options.seconds}", f"-seed={options.seed + 1}", f"-max_len={_LONGEST}"]
        arguments += [f"-timeout={_SECONDS}", f"-rss_limit_mb={_MEGABYTES}", "-print_final_stats=1", "-len_control=0"]
        if options.corpus is not None:
            options.corpus.mkdir(parents=True, exist_ok=True)
            arguments += [f"-artifact_prefix={options.corpus.parent}/{options.targets[0]}-", str(options.corpus)]
        atheris.Setup(arguments, lambda data: attempt(target, bytes(data), Path(folder)) and None)
        atheris.Fuzz()
    return 0


def _warm(name: str) -> None:
    from tests.attacks.targets import TARGETS, attempt

    with tempfile.TemporaryDirectory() as folder:
        for number in range(16):
            attempt(TARGETS[name], bytes([number]) * 3, Path(folder))


def _random(run: object, options: argparse.Namespace) -> int:
    chance, count, end = random.Random(options.seed), 0, time.monotonic() + options.seconds
    while time.monotonic() < end:
        data = chance.randbytes(chance.randrange(_LONGEST))
        try:
            run(data)
        except BaseException:
            print(f"the case: {data!r}")
            raise
        count += 1
    print(f"{count} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
