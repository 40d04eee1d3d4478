"""The speech that comes with the exporter: what the files are, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.calibration_speech import ENGLISH, ENGLISH_FOLDER, FOLDER, SENTENCES
from triform.export.samples.voices import noise, sentences, speech
from triform.runtime.errors import UnsupportedError

RATE = 16000
CLIPS = sorted(FOLDER.glob("*.flac"))


def test_a_file_for_every_sentence():
    files = sorted(FOLDER.glob("*"))
    assert {file.stem for file in files} == set(SENTENCES)
    assert len({name.split("-")[0] for name in SENTENCES}) >= 20
    assert len({voice for voice, *_ in SENTENCES.values()}) >= 8
    check_sounds(files, "FLAC", seconds=(1.5, 4.3), most_bytes=2e6)


def test_an_english_file_for_every_sentence_whose_words_are_counted():
    files = sorted(ENGLISH_FOLDER.glob("*"))
    assert [file.name for file in files] == [f"{number:02}.ogg" for number in range(1, len(ENGLISH) + 1)]
    assert len({sentence for *_, sentence in ENGLISH}) == len(ENGLISH)
    assert sum(len(sentence.split()) for *_, sentence in ENGLISH) > 300
    check_sounds(files, "OGG", seconds=(2.5, 6.5), most_bytes=6e5)


def check_sounds(files: list[Path], kind: str, *, seconds: tuple[float, float], most_bytes: float) -> None:
    assert sum(file.stat().st_size for file in files) < most_bytes
    for file in files:
        info = soundfile.info(file)
        assert (info.format, info.samplerate, info.channels) == (kind, RATE, 1)
        assert seconds[0] < info.duration < seconds[1]


def test_sentences_are_joined_up_to_what_is_heard_at_once():
    clips = [soundfile.read(file)[0] for file in sorted(ENGLISH_FOLDER.glob("*"))]
    alone, joined = (sentences(RATE, seconds, english=True) for seconds in (0, 30))
    assert [len(row) for row in alone] == [len(clip) for clip in clips]
    assert all(20 * RATE < len(row) <= 30 * RATE for row in joined[:-1])
    # Between two sentences there are 0.6 seconds.
    pauses = round(0.6 * RATE) * (len(clips) - len(joined))
    assert sum(map(len, joined)) == sum(map(len, clips)) + pauses
    # The noise is 20 decibels below the loudest sample, and the same at each call.
    difference = np.abs(joined[0][: len(clips[0])] - clips[0]).max()
    assert 0.01 * np.abs(clips[0]).max() < difference <= 0.1 * np.abs(joined[0]).max()
    np.testing.assert_array_equal(joined[0], sentences(RATE, 30, english=True)[0])


def test_other_languages_are_those_that_are_compared_on():
    english = sentences(RATE, 0, english=True)
    others = sentences(RATE, 0, english=False)[len(english) :]
    assert [len(row) for row in others] == [soundfile.info(file).frames for file in CLIPS[::4]]


def test_a_seed_makes_the_same_speech():
    first, again, other = (speech("calibration", 5.0, RATE, seed) for seed in (1, 1, 2))
    assert first.dtype == np.float32
    assert first.shape == (5 * RATE,)
    assert np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_other_sentences_are_compared_on_than_calibrated_on():
    """A clip is in the recording a part of which it resembles more."""
    heard = {name: speech(name, 120.0, RATE, 0).astype(np.float64) for name in ("calibration", "evaluation")}
    of = {file.stem: {name: likeness(heard[name], soundfile.read(file)[0]) for name in heard} for file in CLIPS}
    compared = [name for name, peaks in of.items() if peaks["evaluation"] > peaks["calibration"]]
    assert compared == [file.stem for file in CLIPS[::4]]


def likeness(recording, clip):
    """The highest correlation of a clip with any part of a recording."""
    size = 2 ** int(np.ceil(np.log2(len(recording) + len(clip))))
    product = np.fft.irfft(np.fft.rfft(recording, size) * np.fft.rfft(clip, size).conj(), size)
    energy = np.concatenate([[0], (recording**2).cumsum()])
    here = energy[len(clip) :] - energy[: -len(clip)]
    return float((product[: len(here)] / np.sqrt(here * (clip**2).sum() + 1e-9)).max())


def test_other_rates():
    assert speech("evaluation", 2.0, 8000, 0).shape == (16000,)


def test_noise_is_soft():
    sound = noise(1.0, RATE, 0)
    assert sound.shape == (RATE,)
    assert 0 < np.abs(sound).max() <= 0.0101


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr("triform.runtime.media.audio.find_spec", lambda _: None)
    with pytest.raises(UnsupportedError, match="soundfile"):
        speech("calibration", 1.0, RATE, 0)


def test_the_wheel_has_them(wheel):
    from zipfile import ZipFile

    names = {Path(name).name for name in ZipFile(wheel).namelist() if "samples/data/" in name}
    clips = {f"{name}.flac" for name in SENTENCES} | {f"{number:02}.ogg" for number in range(1, len(ENGLISH) + 1)}
    assert {name for name in names if not name.endswith(".txt")} == clips
