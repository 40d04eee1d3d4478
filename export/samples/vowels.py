"""Made-up vowels to compare graphs with PyTorch on, where it does not matter what is said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Center frequencies, in Hz, of the first three formants of a few vowels of men
# (Peterson and Barney, Control Methods Used in a Study of the Vowels, 1952).
_VOWELS = ((270, 2290, 3010), (530, 1840, 2480), (730, 1090, 2440), (570, 840, 2410), (300, 870, 2240))
_BANDWIDTH = 90.0


def synthetic_voice(seconds: float, sampling_rate: int, seed: int) -> NDArray[np.float32]:
    """Syllables of vowels with a gliding pitch, hiss between them, and pauses; float32 in [-1, 1]."""
    generator = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    missing = round(seconds * sampling_rate)
    while missing > 0:
        length = int(generator.uniform(0.08, 0.25) * sampling_rate)
        kind = generator.random()
        if kind < 0.7:
            part = _vowel(length, sampling_rate, generator)
        else:
            part = generator.standard_normal(length) * (0.05 if kind < 0.85 else 0.001)
        parts.append(part[:missing] * np.hanning(length)[:missing])
        missing -= length
    return np.concatenate(parts).clip(-1, 1).astype(np.float32)


def _vowel(length: int, sampling_rate: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Harmonics of a pitch, weighted by the formants near them."""
    formants = np.array(_VOWELS[generator.integers(len(_VOWELS))])
    pitch = np.linspace(generator.uniform(90, 220), generator.uniform(90, 220), length)
    phase = 2 * np.pi * np.cumsum(pitch) / sampling_rate
    sound = np.zeros(length)
    for number in range(1, int(4000 / pitch.mean())):
        distance = (number * pitch.mean() - formants) / _BANDWIDTH
        sound += np.sin(number * phase) * (1 / (1 + distance**2)).sum() / number**0.5
    return 0.5 * sound / np.abs(sound).max()
