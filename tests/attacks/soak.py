"""Uses models again and again, and looks whether memory grows: `python -m tests.attacks.soak BUNDLE --rounds 10000`.

For a decoder a round is a short answer, for an encoder a vector, for a speech model the transcript of a second of
noise. After a tenth of the rounds the memory must stay within 2 %.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import triform

_ALLOWED = 1.02
_PAGE = resource.getpagesize()


def main() -> int:
    """Soak one bundle; the exit code is 1 if memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=10_000)
    options = parser.parse_args()
    work = _work_of(triform.load(options.bundle))
    first = max(1, options.rounds // 10)
    settled = 0
    for number in range(1, options.rounds + 1):
        work(number)
        if number % first == 0:
            settled = settled or _memory()
            print(f"{number} rounds: {_memory() / 2**20:.1f} MiB", flush=True)
    last = _memory()
    fits = last <= settled * _ALLOWED
    print(f"{options.rounds} rounds: {last / 2**20:.1f} MiB, {'flat' if fits else 'IT GROWS'}")
    return 0 if fits else 1


def _work_of(model: object) -> Callable[[int], object]:
    if isinstance(model, triform.Decoder):
        options = triform.GenerationOptions(max_new_tokens=4)
        # A hundred different words, because tokenizers keep up to ten thousand words that they have seen: some MiB.
        return lambda number: model.generate(f"Question {number % 100}: " + "why? " * (number % 40), options)
    if isinstance(model, triform.Encoder):
        return lambda number: model.embed(["a ship " * (1 + number % 60)])
    chance = np.random.default_rng(0)
    return lambda number: list(model.transcribe(chance.normal(0, 0.1, 16000).astype(np.float32)))


def _memory() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    sys.exit(main())
