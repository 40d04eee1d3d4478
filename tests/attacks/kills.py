"""Kills commands that write at random moments, and looks at what is there and whether the next run is right.

`python -m tests.attacks.kills DECODER ENCODER --kills 50`: for each command as many kills as asked. After each kill the
file under the final name is whole or absent, and the same command again, with --resume where it has that, gives what
a run gives that nobody killed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_TEXTS = 60


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        name: of the command.
        arguments: without the target, which comes last.
        target: the file or folder that it writes.
        resume: whether it can go on.
    """

    name: str
    arguments: tuple[str, ...]
    target: str
    resume: bool = False


def main() -> int:
    """Kill all commands; the exit code is 1 if something was lost or half-written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", help="one of generate, embed, search, cache")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, failed = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        texts = place / "texts.txt"
        texts.write_text("".join(f"Line {number} about a ship.\n" for number in range(_TEXTS)))
        for case in _cases(options.decoder, options.encoder, texts):
            if options.only not in (None, case.name):
                continue
            failed += _attack(case, place / "work", options.kills, chance)
    return 1 if failed else 0


def _cases(decoder: Path, encoder: Path, texts: Path) -> list[Case]:
    greedy = ("--temperature", "0", "--max-new-tokens", "8")
    return [
        Case("generate", ("generate", str(decoder), "--input", str(texts), *greedy, "--output"), "o.jsonl", True),
        Case("embed", ("embed", str(encoder), "--file", str(texts), "--output"), "v.npy", True),
        Case("search", ("search", str(encoder), "ship", "--file", str(texts), "--index"), "index"),
        Case("cache", ("generate", str(decoder), "a ship " * 30, *greedy, "--prompt-cache"), "cache"),
    ]


def _attack(case: Case, folder: Path, kills: int, chance: random.Random) -> int:
    """How many of the kills did harm."""
    expected, seconds = _undisturbed(case, folder)
    harm = running = 0
    for _ in range(kills):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        process = subprocess.Popen(_command(case, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.2, 1) * seconds)
        running += process.poll() is None
        process.kill()
        process.wait()
        whole = not (folder / case.target).exists() or _content(folder / case.target) == expected
        again = _run(case, folder, resume=case.resume and (folder / f"{case.target}.part").exists())
        left = [path.name for path in folder.iterdir() if path.name != case.target]
        if not whole or again != expected or left:
            harm += 1
            print(f"{case.name}: whole {whole}, again right {again == expected}, left {left}")
    print(f"{case.name}: {kills} kills, {running} while it ran, {harm} did harm", flush=True)
    return harm


def _undisturbed(case: Case, folder: Path) -> tuple[dict[str, bytes], float]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.monotonic()
    expected = _run(case, folder, resume=False)
    return expected, time.monotonic() - start


def _run(case: Case, folder: Path, *, resume: bool) -> dict[str, bytes]:
    command = [*_command(case, folder), *(["--resume"] if resume else [])]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return _content(folder / case.target)


def _command(case: Case, folder: Path) -> list[str]:
    return [sys.executable, "-m", "triform", *case.arguments, str(folder / case.target)]


def _content(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}


if __name__ == "__main__":
    sys.exit(main())
