"""Made-up vowels: the published formants, lengths to the sample, and what a spectrum shows of them."""

from __future__ import annotations

import numpy as np
import pytest

from triform.export.samples import vowels
from triform.export.samples.vowels import synthetic_voice


def test_formants_are_those_of_peterson_and_barney():
    """The averages of men: of heed, head, hod, hawed and who'd."""
    published = {(270, 2290, 3010), (530, 1840, 2480), (730, 1090, 2440), (570, 840, 2410), (300, 870, 2240)}
    assert set(vowels._VOWELS) == published


@pytest.mark.parametrize(("seconds", "rate", "count"), [(1.0, 16000, 16000), (0.01, 16000, 160), (2.5, 8000, 20000)])
def test_lengths(seconds, rate, count):
    sound = synthetic_voice(seconds, rate, 0)
    assert sound.shape == (count,) and sound.dtype == np.float32 and np.abs(sound).max() <= 1


def test_a_seed_makes_the_same_sound():
    first, again, other = (synthetic_voice(0.5, 16000, seed) for seed in (3, 3, 4))
    assert (first == again).all() and not (first == other).all()


@pytest.mark.parametrize("formants", vowels._VOWELS)
def test_a_vowel_is_loudest_at_its_formants(monkeypatch, formants):
    """Within a harmonic, of at most 220 Hz; the loudest place is 0.5."""
    monkeypatch.setattr(vowels, "_VOWELS", (formants,))
    sound = vowels._vowel(16000, 16000, np.random.default_rng(0))
    assert np.abs(sound).max() == pytest.approx(0.5)
    power = np.abs(np.fft.rfft(sound)) ** 2
    near = [power[max(0, formant - 220) : formant + 220].sum() for formant in formants[:2]]
    apart = power[formants[1] + 300 : formants[2] - 300].sum() if formants[2] - formants[1] > 800 else 0
    assert sum(near) > 0.7 * power.sum() and min(near) > 3 * apart
    # Nothing above 4 kHz, and nothing of a mean.
    assert power[4300:].sum() < 1e-3 * power.sum() and power[:60].sum() < 1e-2 * power.sum()
