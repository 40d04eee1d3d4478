"""The speech that comes with the exporter: what the files are, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.calibration_speech import FOLDER, SENTENCES
from triform.export.samples.voices import noise, speech
from triform.runtime.errors import UnsupportedError

RATE = 16000


def test_a_file_for_every_sentence():
    files = sorted(FOLDER.glob("*"))
    assert {file.stem for file in files} == set(SENTENCES)
    assert len({name.split("-")[0] for name in SENTENCES}) >= 20
    assert len({voice for voice, *_ in SENTENCES.values()}) >= 8
    assert sum(file.stat().st_size for file in files) < 2e6
    for file in files:
        info = soundfile.info(file)
        assert (info.format, info.samplerate, info.channels) == ("FLAC", RATE, 1)
        assert 1.5 < info.duration < 4.3


def test_a_seed_makes_the_same_speech():
    first, again, other = (speech("calibration", 5.0, RATE, seed) for seed in (1, 1, 2))
    assert first.dtype == np.float32
    assert first.shape == (5 * RATE,)
    assert np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_other_sentences_are_compared_on_than_calibrated_on():
    """A clip is in a recording if the two correlate: one, or almost none of the clips of the other purpose."""
    heard = {name: speech(name, 120.0, RATE, 0).astype(np.float64) for name in ("calibration", "evaluation")}
    of = {}
    for file in sorted(FOLDER.glob("*")):
        clip = soundfile.read(file)[0]
        size = 2 ** int(np.ceil(np.log2(121 * RATE)))
        peaks = {}
        for name, recording in heard.items():
            product = np.fft.irfft(np.fft.rfft(recording, size) * np.fft.rfft(clip, size).conj(), size)
            energy = np.convolve(recording**2, np.ones(1), "same").cumsum()
            start = int(product[: len(recording) - len(clip)].argmax())
            here = energy[start + len(clip)] - energy[start]
            peaks[name] = product[start] / np.sqrt(here * (clip**2).sum())
        of[file.stem] = max(peaks, key=peaks.get)
        assert peaks[of[file.stem]] > 0.5
        assert min(peaks.values()) < 0.3
    assert sorted(of.values()).count("evaluation") == 6


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

    names = {Path(name).stem for name in ZipFile(wheel).namelist() if name.endswith(".flac")}
    assert names == set(SENTENCES)
