"""Makes the speech that speech models are calibrated and compared on.

    python benchmarks/calibration_speech.py

export/samples/data/speech has a FLAC file for each language, spoken by espeak-ng, and export/samples/data/english the
sentences whose words are counted, spoken by Flite, whose voices were recorded, so that small models understand them. It
needs both and soundfile; the files it makes are part of the repository, so that an export needs none of them. The
sentences were written for this project, and what the two make of them is free to use.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

DATA = Path(__file__).parent.parent / "export" / "samples" / "data"
FOLDER, ENGLISH_FOLDER = DATA / "speech", DATA / "english"
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
# Flite's voice, how much slower than usual it speaks, and what is said.
ENGLISH = [
    ("slt", 1.0, "Somebody had painted the kitchen door green while they were away."),
    ("rms", 1.1, "It was too late to cook, so they ate bread and cheese by the fire."),
    ("awb", 0.95, "The meeting has been moved from Monday morning to Friday at noon."),
    ("slt", 1.05, "Few of the guests knew that the violin had belonged to her father."),
    ("rms", 1.0, "Do you remember where we parked the car before the concert?"),
    ("awb", 1.1, "Rivers carry sand and mud to the sea, where they settle in layers."),
    ("slt", 0.95, "Please write down the number, because I am going to delete the message."),
    ("rms", 1.05, "She spoke so softly that the people in the last row heard nothing."),
    ("awb", 1.0, "Our neighbors bought a boat last summer and have never once used it."),
    ("slt", 1.1, "The teacher asked everyone to bring a map and a pair of good shoes."),
    ("rms", 0.95, "If the battery is empty, the lamp on the left begins to blink."),
    ("awb", 1.05, "By the time the snow had melted, half of the fence was gone."),
    ("slt", 1.0, "My sister repairs old clocks in a small shop behind the post office."),
    ("rms", 1.1, "We should leave before eight, otherwise the traffic on the bridge will be terrible."),
    ("awb", 0.95, "He had never been fond of long letters, yet he answered every one of them."),
    ("slt", 1.05, "Three hundred and forty people voted, and nineteen of the ballots were blank."),
    ("rms", 1.0, "The doctor told him to rest for a week and to drink plenty of water."),
    ("awb", 1.1, "Could you please tell me whether the museum is open on public holidays?"),
    ("slt", 0.95, "A cold wind blew across the moor, and the sheep stood close together."),
    ("rms", 1.05, "I think that the second answer is wrong, but I cannot explain why."),
    ("awb", 1.0, "Her uncle left her a considerable fortune and a house with a leaking roof."),
    ("slt", 1.1, "Thanks for calling; your order will be delivered on Thursday afternoon."),
    ("rms", 0.95, "Photosynthesis turns sunlight, water and carbon dioxide into sugar and oxygen."),
    ("awb", 1.05, "The children were quite happy to be out of doors again after the storm."),
    ("slt", 1.0, "Nothing would have pleased the old gentleman more than a quiet supper."),
    ("rms", 1.1, "Well, that depends on how much money you are willing to spend, doesn't it?"),
    ("awb", 0.95, "They planted apple trees along the road, one for every child in the village."),
]


def main() -> None:
    """Write every file and say how large they are together."""
    FOLDER.mkdir(exist_ok=True)
    ENGLISH_FOLDER.mkdir(exist_ok=True)
    for language, (variant, speed, pitch, sentence) in SENTENCES.items():
        samples = spoken(f"{language}+{variant}", speed, pitch, sentence)
        soundfile.write(FOLDER / f"{language}.flac", samples, SAMPLING_RATE, subtype="PCM_16", compression_level=1.0)
    for number, (voice, stretch, sentence) in enumerate(ENGLISH, 1):
        path, samples = ENGLISH_FOLDER / f"{number:02}.ogg", said(voice, stretch, sentence)
        soundfile.write(path, samples, SAMPLING_RATE, subtype="VORBIS", compression_level=0.9)
    files = [path for folder in (FOLDER, ENGLISH_FOLDER) for path in folder.iterdir()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.2f} MB")


def spoken(voice: str, speed: int, pitch: int, sentence: str) -> NDArray[np.float32]:
    """A sentence of espeak-ng, its beginning if it is long: float32 (samples,) at 16 kHz, half as loud as possible."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", sentence]
    sound = subprocess.run(command, check=True, capture_output=True).stdout
    return _prepared(io.BytesIO(sound), round(SECONDS * SAMPLING_RATE))


def said(voice: str, stretch: float, sentence: str) -> NDArray[np.float32]:
    """A sentence of Flite: float32 (samples,) at 16 kHz, half as loud as possible."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        settings = ["-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", sentence]
        subprocess.run(["flite", *settings, "-o", file.name], check=True)
        return _prepared(Path(file.name), None)


def _prepared(sound: io.BytesIO | Path, longest: int | None) -> NDArray[np.float32]:
    samples, rate = soundfile.read(sound, dtype="float32")
    resampled: NDArray[np.float32] = soxr.resample(samples, rate, SAMPLING_RATE)[:longest]
    return 0.5 * resampled / np.abs(resampled).max()


if __name__ == "__main__":
    main()
