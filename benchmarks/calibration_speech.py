"""Makes the speech that speech models are calibrated on: export/samples/data/speech, a FLAC file for each language.

    python benchmarks/calibration_speech.py

It needs espeak-ng and soundfile; the files it makes are part of the repository, so that an export needs neither. The
sentences were written for this project, and what espeak-ng makes of them is free to use.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

FOLDER = Path(__file__).parent.parent / "export" / "samples" / "data" / "speech"
SAMPLING_RATE = 16000
SECONDS = 4.2

# By espeak-ng's name of the language: its variant of the voice, words a minute, pitch from 0 to 99, and what is said.
SENTENCES = {
    "en-us": ("f3", 175, 55, "The library opens at nine, but the garden behind it is never closed."),
    "en-gb": ("m3", 150, 35, "She asked whether the last train had already left, and nobody knew."),
    "de": ("m1", 165, 40, "Am Abend wurde es kühler, und die Kinder liefen schnell nach Hause."),
    "fr-fr": ("f2", 170, 60, "Le marché du village commence tôt, surtout quand il fait beau."),
    "es": ("m4", 180, 45, "Mañana por la mañana compraremos naranjas, queso y pan recién hecho."),
    "it": ("f4", 165, 50, "Il vecchio ponte attraversa il fiume vicino alla stazione."),
    "pt-br": ("f1", 170, 58, "A chuva parou depressa e as ruas ficaram cheias de gente."),
    "nl": ("m2", 160, 38, "De fietser wachtte geduldig tot het stoplicht groen werd."),
    "pl": ("f5", 160, 62, "Wczoraj wieczorem czytaliśmy książkę o dalekich podróżach."),
    "ru": ("m5", 155, 30, "Зимой озеро замерзает, и по нему можно ходить пешком."),
    "cs": ("m6", 165, 42, "Řeka se rozlila, a proto byla cesta celý den zavřená."),
    "fi": ("f2", 150, 52, "Metsässä kasvaa mustikoita, joita kerätään elokuussa."),
    "hu": ("m7", 160, 44, "A szomszéd kutyája minden reggel megvárja a postást."),
    "el": ("f3", 165, 57, "Το καράβι φεύγει από το λιμάνι λίγο πριν από το μεσημέρι."),
    "tr": ("m1", 165, 36, "Çay hazır olunca herkes bahçedeki masaya oturdu."),
    "ar": ("m3", 150, 40, "وصل القطار متأخرا لأن الطريق كان مغلقا في الصباح."),
    "hi": ("f4", 160, 60, "बारिश के बाद बच्चे मैदान में फिर से खेलने लगे।"),
    "ja": ("f1", 150, 64, "あしたのあさ、えきのまえで ともだちに あいます。"),
    "cmn": ("m2", 150, 46, "今天下午我们一起去公园散步。"),
    "vi": ("f5", 155, 56, "Buổi sáng tôi thường uống cà phê và đọc báo ngoài hiên."),
    "sw": ("m4", 160, 34, "Watoto wanaimba wakati wazazi wao wanapika chakula."),
    "id": ("f2", 170, 54, "Pasar itu ramai sekali setiap hari Minggu pagi."),
}


def main() -> None:
    """Write every file and say how large they are together."""
    FOLDER.mkdir(exist_ok=True)
    for language, (variant, speed, pitch, sentence) in SENTENCES.items():
        samples = spoken(f"{language}+{variant}", speed, pitch, sentence)
        soundfile.write(FOLDER / f"{language}.flac", samples, SAMPLING_RATE, subtype="PCM_16", compression_level=1.0)
    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{len(SENTENCES)} files, {total / 1e6:.2f} MB")


def spoken(voice: str, speed: int, pitch: int, sentence: str) -> NDArray[np.float32]:
    """A sentence, its beginning if it is long: float32 (samples,) at 16 kHz, half as loud as possible."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", sentence]
    sound = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    resampled: NDArray[np.float32] = soxr.resample(samples, rate, SAMPLING_RATE)[: round(SECONDS * SAMPLING_RATE)]
    return 0.5 * resampled / np.abs(resampled).max()


if __name__ == "__main__":
    main()
