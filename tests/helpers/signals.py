"""Sounds from arithmetic, at 16 kHz."""

from __future__ import annotations

import numpy as np

from triform.runtime.media.audio import open_audio

RATE = 16000


def tone(seconds, frequency=1000.0, rate=RATE, amplitude=0.5):
    """float32; sample n is amplitude * sin(2 pi frequency n / rate)."""
    n = np.arange(round(seconds * rate))
    return (amplitude * np.sin(2 * np.pi * frequency * n / rate)).astype(np.float32)


def noise(seconds, amplitude=0.1, seed=0):
    return np.random.default_rng(seed).normal(0, amplitude, round(seconds * RATE)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


def voice(seconds, pitch=120.0):
    """A voice's harmonics under three formants, two of which move, four syllables a second: vowels, roughly."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * pitch * (time - 0.1 / (2 * np.pi * 0.7) * np.cos(2 * np.pi * 0.7 * time))
    first, second = 500 + 250 * np.sin(2 * np.pi * 2.1 * time), 1500 + 500 * np.sin(2 * np.pi * 1.3 * time)
    sound = np.zeros_like(time)
    for harmonic in range(1, 40):
        frequency = harmonic * pitch
        strength = 1 / (1 + ((frequency - first) / 80) ** 2) + 0.5 / (1 + ((frequency - second) / 120) ** 2)
        strength += 0.2 / (1 + ((frequency - 2500) / 200) ** 2)
        sound += strength * np.sin(harmonic * phase)
    return (0.1 * sound * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time))).astype(np.float32)


SOUNDS = {
    "tone": tone(2, 3333.3),
    "faint tone": tone(1, 440, amplitude=1e-4),
    "noise": noise(3.7),
    "silence": silence(1),
    "voice": voice(5),
    "voice then silence": np.concatenate([voice(2), silence(2)]),
    # As of a telephone's voice: little above 4 kHz, but not nothing.
    "tone over a faint hiss": tone(2, 700) + noise(2, 3e-6),
    "click": np.eye(1, 5000, 2500, dtype=np.float32)[0],
}


def read_audio(source, sampling_rate, warn):
    """A whole sound file at once, float32 (samples,); arguments as of `open_audio` and `Audio.blocks`."""
    with open_audio(source, warn) as audio:
        return np.concatenate([np.zeros(0, np.float32), *audio.blocks(sampling_rate)])
