"""Sound files of the tests."""

from __future__ import annotations

import soundfile

RATE = 16000


def samples_of(path):
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return samples
