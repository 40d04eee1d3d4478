"""Uses models again and again, and looks whether memory grows: `python -m tests.attacks.soak BUNDLE --rounds 10000`.

For a decoder a round is a short answer, for an encoder a vector, for a speech model the transcript of noise of about a
second; of several bundles each takes its turn in every round. After a tenth of the rounds the memory must stay within
2 %.
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
    """Soak bundles in one process; the exit code is 1 if memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--rounds", type=int, default=10_000)
    options = parser.parse_args()
    works = [_work_of(triform.load(bundle)) for bundle in options.bundles]
    first = max(1, options.rounds // 10)
    settled = 0
    for number in range(1, options.rounds + 1):
        for work in works:
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
    if isinstance(model, triform.SpeechModel):
        return _transcripts(model)
    raise SystemExit(f"no rounds are known for a {type(model).__name__}")


def _transcripts(model: triform.SpeechModel) -> Callable[[int], object]:
    """Half a second to two of noise, written in a few tokens, and written again at another temperature if unlikely."""
    options = triform.TranscribeOptions(temperatures=(0.0, 0.7), max_new_tokens=4, seed=1)
    chance = np.random.default_rng(0)

    def transcribe(number: int) -> object:
        return list(model.transcribe(chance.normal(0, 0.1, 8000 + number % 100 * 240).astype(np.float32), options))

    return transcribe


def _memory() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    sys.exit(main())
