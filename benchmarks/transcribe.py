"""Speed, memory and word errors of speech recognition next to faster-whisper.

    python benchmarks/transcribe.py prepare WORK CHECKPOINT CTRANSLATE2 CLIPS   # environments, bundle, sound; once
    python benchmarks/transcribe.py speed WORK                                  # seconds, alternating
    python benchmarks/transcribe.py errors WORK                                 # word error rates
    python benchmarks/transcribe.py memory WORK                                 # peak of a process of its own

CHECKPOINT is a transformers folder of a Whisper model, CTRANSLATE2 the same model in CTranslate2's format, and CLIPS a
folder of WAV files with a file `transcription` that has a line "words (name)" for each. The short sound is the first
clips put together, about 17 s; the long one all clips over and over, up to 10 minutes, half a second apart. Every
engine runs in an environment of its own, with 2 threads, in 8 bits, with timestamps and temperature 0.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS, THREADS = 5, 2
ENGINES = ("triform", "faster-whisper")
PACKAGES = {
    "triform": [f"{HERE.parent}[audio]", "jiwer"],
    "faster-whisper": ["faster-whisper", "soundfile"],
}
SHORT, LONG, RATE = 17, 600, 16000


def prepare(work: Path, checkpoint: Path, ctranslate2: Path, clips: Path):
    """Make everything the other commands need under `work`."""
    work.mkdir(parents=True, exist_ok=True)
    for name, packages in PACKAGES.items():
        if not (work / name).exists():
            subprocess.run([sys.executable, "-m", "venv", work / name], check=True)
            for package in packages:
                subprocess.run([work / name / "bin" / "pip", "install", "--quiet", package], check=True)
    command = [sys.executable, "-m", "triform", "export", checkpoint, work / "triform-model", "--force"]
    subprocess.run(command, check=True)
    (work / "faster-whisper-model").unlink(missing_ok=True)
    (work / "faster-whisper-model").symlink_to(ctranslate2.resolve())
    _sounds(work, clips)


def _sounds(work: Path, clips: Path):
    import numpy as np
    import soundfile

    said = _transcriptions(clips / "transcription")
    parts, words = [], []
    while sum(map(len, parts)) < LONG * RATE:
        for name, text in said.items():
            samples, rate = soundfile.read(clips / f"{name}.wav", dtype="float32")
            if rate != RATE:
                raise SystemExit(f"{name} has {rate} samples a second, not {RATE}")
            parts += [samples, np.zeros(RATE // 2, np.float32)]
            words.append(text)
            if not (work / "short.wav").exists() and sum(map(len, parts)) >= SHORT * RATE:
                _write(work / "short", parts, words)
    _write(work / "long", parts, words)


def _write(stem: Path, parts, words):
    import numpy as np
    import soundfile

    soundfile.write(stem.with_suffix(".wav"), np.concatenate(parts), RATE)
    stem.with_suffix(".txt").write_text(" ".join(words))


def _transcriptions(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text().splitlines():
        match = re.fullmatch(r"(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)\s*", line)
        if match:
            found[match[2]] = match[1]
    return found


def _start(work: Path, name: str):
    command = [work / name / "bin" / "python", HERE / "transcribe_engines.py", name, work / f"{name}-model"]
    return subprocess.Popen(
        [*command, str(THREADS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _ask(process, **request):
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def speed(work: Path):
    """Alternate between the engines; idle ones only wait for a line."""
    running = {name: _start(work, name) for name in ENGINES}
    print("sound  beams  " + "  ".join(f"{name:>16}" for name in ENGINES) + "   faster-whisper / ours")
    for sound, rounds in (("short", ROUNDS), ("long", ROUNDS)):
        for beams in (1, 5):
            found = {name: [] for name in ENGINES}
            for round_number in range(rounds + 1):
                for name in ENGINES:
                    answer = _ask(running[name], sound=str(work / f"{sound}.wav"), beams=beams)
                    if round_number:
                        found[name].append(answer["seconds"])
                    time.sleep(0.3)
            median = {name: statistics.median(times) for name, times in found.items()}
            row = "  ".join(f"{median[name]:14.3f} s" for name in ENGINES)
            ratio = median["faster-whisper"] / median["triform"]
            print(f"{sound:<6} {beams:5}  {row}   {ratio:.2f}", flush=True)


def errors(work: Path):
    """Word error rates on both sounds."""
    import jiwer

    for sound in ("short", "long"):
        wanted = _plain((work / f"{sound}.txt").read_text())
        for beams in (1, 5):
            for name in ENGINES:
                process = _start(work, name)
                text = _ask(process, sound=str(work / f"{sound}.wav"), beams=beams)["text"]
                process.stdin.close()
                process.wait()
                print(
                    f"{sound:<6} beams {beams}  {name:<16} {100 * jiwer.wer(wanted, _plain(text)):6.2f} %", flush=True
                )


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split())


def memory(work: Path):
    """Peak resident memory of a process that transcribes one sound."""
    for sound in ("short", "long"):
        for name in ENGINES:
            process = _start(work, name)
            peak = _ask(process, sound=str(work / f"{sound}.wav"), beams=1)["peak"]
            process.stdin.close()
            process.wait()
            print(f"{sound:<6} {name:<16} {peak / 1024:7.0f} MiB", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("prepare", "speed", "errors", "memory"):
        raise SystemExit(__doc__)
    globals()[sys.argv[1]](*map(Path, sys.argv[2:]))
