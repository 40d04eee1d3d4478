"""Checks a speech bundle on a GPU: how fast it transcribes clips that are joined to several minutes.

python tests/gpu/check_speech.py BUNDLE FOLDER [--minutes 5] [--batch 1 8] [--provider cuda]

Prints a line of JSON for each batch: `real_time` is seconds of audio per second, `steps_s` runs of the decoder a second
(prompts and later tokens). FOLDER has WAV files of 16-bit samples, one channel, at the model's rate.
"""

from __future__ import annotations

import argparse
import json
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform import load_speech
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.graphs.encoder_output import SourceSession
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.transcription import audio_info, transcribe

_WARM_UP = 30


def main() -> None:
    """Run the command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--provider", default="cuda")
    given = parser.parse_args()
    start = time.perf_counter()
    model = load_speech(given.bundle, provider=given.provider, verify="never")
    if not isinstance(model, SourceWriter):
        raise SystemExit(f"{given.bundle} is no encoder-decoder")
    opened, rate = time.perf_counter() - start, audio_info(model).sampling_rate
    samples = joined(given.folder, rate, given.minutes * 60)
    runs = _count_runs()
    for batch in given.batch:
        options = TranscribeOptions(batch=batch, seed=0)
        list(transcribe(model, samples[: _WARM_UP * rate], options))
        before, start = runs[0], time.perf_counter()
        segments = list(transcribe(model, samples, options))
        seconds = time.perf_counter() - start
        words = " ".join(segment.text.strip() for segment in segments).split()
        say(
            check="speech", provider=model.providers[0], batch=batch, open_s=round(opened, 2),
            audio_s=round(len(samples) / rate, 1), seconds=round(seconds, 3),
            real_time=round(len(samples) / rate / seconds, 1), steps_s=round((runs[0] - before) / seconds, 1),
            words=len(words), text=" ".join(words[:40]),
        )  # fmt: skip


def say(**what: Any) -> None:
    """Print a result."""
    print(json.dumps(what), flush=True)


def joined(folder: Path, rate: int, seconds: float) -> NDArray[np.float32]:
    """All clips of a folder one after another, again and again: float32 samples for as many seconds."""
    clips = [samples_of(path, rate) for path in sorted(folder.glob("*.wav"))]
    if not clips:
        raise SystemExit(f"{folder} has no WAV files")
    once, count = np.concatenate(clips), int(seconds * rate)
    return np.tile(once, -(-count // len(once)))[:count]


def samples_of(path: Path, rate: int) -> NDArray[np.float32]:
    """The samples of a WAV file, -1 to 1."""
    with wave.open(str(path)) as file:
        if (file.getsampwidth(), file.getnchannels(), file.getframerate()) != (2, 1, rate):
            raise SystemExit(f"{path} does not have 16-bit samples of one channel at {rate} Hz")
        frames = file.readframes(file.getnframes())
    return np.frombuffer(frames, "<i2").astype(np.float32) / 2**15


def _count_runs() -> list[int]:
    """The number of runs of the decoder, as they happen."""
    runs, run = [0], SourceSession.run_with_iobinding

    def counted(self: SourceSession, *arguments: Any) -> None:
        runs[0] += 1
        run(self, *arguments)

    SourceSession.run_with_iobinding = counted  # type: ignore[method-assign]
    return runs


if __name__ == "__main__":
    main()
