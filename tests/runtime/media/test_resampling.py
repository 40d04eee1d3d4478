"""What resampling leaves and what it takes away, in decibels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from tests.helpers.signals import RATE, read_audio, tone

# Where the filter sees the sound's beginning or end, at 16 kHz.
EDGE = 2000


def resampled(frequency, rate, seconds=5):
    """A tone of that rate, of amplitude 0.5, read at 16 kHz; written as floats in several blocks of reading."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, frequency, rate), rate, format="WAV", subtype="FLOAT")
    return read_audio(buffer.getvalue(), RATE, lambda warning: pytest.fail(warning))[EDGE:-EDGE]


def decibels(values):
    """Its largest amplitude, relative to the tone's."""
    return 20 * np.log10(np.abs(values).max() / 0.5)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 192_000])
@pytest.mark.parametrize("frequency", [100, 1000, 3000])
def test_a_tone_stays_what_it_was(rate, frequency):
    found = resampled(frequency, rate)
    assert decibels(found - tone(5, frequency)[EDGE:-EDGE]) < -80


@pytest.mark.parametrize("frequency", [9000, 11000, 15000, 20000])
def test_what_16_khz_cannot_hold_is_gone(frequency):
    # Left in, it would sound at 16 kHz less its frequency, as loud as before.
    assert decibels(resampled(frequency, 44100)) < -80
    assert decibels(tone(1, frequency, 44100)) == pytest.approx(0, abs=0.1)
