"""Windows, silence and quiet moments of recordings, by features that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.media.log_mel import LogMelWindows
from triform.runtime.speech.recording import (
    SamplesRecording,
    ShortWindows,
    leading_silence,
    no_longer_than,
    open_windows,
    quietest,
    reopened,
)

# Two seconds at once, 50 frames.
INFO = AudioInfo("log_mel", 1000, 4, 0.0, chunk_length=2, win_length=80, n_fft=80, hop_length=40)


def noise(count):
    return np.random.default_rng(count).standard_normal(count).astype(np.float32) / 10


def blocks(*lengths):
    return [np.full(length, index, np.float32) for index, length in enumerate(lengths)]


@pytest.mark.parametrize(
    ("lengths", "limit", "count"),
    [((), 0, 0), ((3,), 3, 3), ((3,), 2, None), ((2, 2), 4, 4), ((2, 2), 3, None), ((2, 0, 2), 4, 4), ((1,), 0, None)],
)
def test_recordings_up_to_a_limit(lengths, limit, count):
    found = no_longer_than(limit, blocks(*lengths))
    assert (None if found is None else len(found)) == count
    if found is not None:
        assert found.dtype == np.float32 and found.tolist() == [
            i for i, length in enumerate(lengths) for _ in range(length)
        ]


def test_a_long_recording_is_not_read_to_its_end():
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield np.zeros(10, np.float32)

    assert no_longer_than(25, endless()) is None and read == [0, 1, 2]


def test_samples_are_a_block():
    assert [len(block) for block in SamplesRecording(noise(5)).blocks(1000)] == [5]
    assert list(SamplesRecording(noise(0)).blocks(1000)) == []


@pytest.mark.parametrize("count", [0, 39, 40, 1000, 1999, 2000])
def test_a_recording_of_one_window(count):
    recording = SamplesRecording(noise(count))
    windows = open_windows(recording, INFO)
    assert isinstance(windows, ShortWindows) and windows.length == 50
    whole, frames = windows.window(0)
    assert (whole.shape, frames) == ((4, 50), count // 40)
    later, left = windows.window(7)
    np.testing.assert_array_equal(later[:, :43], whole[:, 7:])
    # What is behind the window are zeros, not silence.
    assert not later[:, 43:].any() and left == max(0, count // 40 - 7)
    assert windows.window(60)[1] == 0
    assert reopened(recording, INFO, windows) is windows


def test_a_recording_of_more_than_one_window():
    recording = SamplesRecording(noise(2001))
    windows = open_windows(recording, INFO)
    assert isinstance(windows, LogMelWindows)
    first, count = windows.window(0)
    assert count == 50
    windows.window(30)
    # It goes on only; what is opened again begins again, with the same maximum.
    again = reopened(recording, INFO, windows)
    assert again is not windows and again.maximum == windows.maximum
    np.testing.assert_array_equal(again.window(0)[0], first)


def features(*loudest, lowest=-1.5):
    """Frames of two bands, of which the louder one is given."""
    return np.array([loudest, [lowest] * len(loudest)], np.float32)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], 0), ([0.5], 0), ([-1.2, -1.1, 0.5, -1.2], 2), ([-1.0, 0.5], 1), ([-0.99, 0.5], 0), ([-1.2, -1.2], 2),
        ([-1.0] * 3, 3),
    ],
)  # fmt: skip
def test_silence_at_the_beginning(frames, expected):
    assert leading_silence(features(*frames)) == expected


def test_silence_is_80_decibels_below_the_loudest_place():
    """The least of log-mel features is that level: 2 below the largest, which may be above -1."""
    assert leading_silence(features(0.5, 0.5, 0.6, lowest=0.5)) == 2
    assert leading_silence(np.zeros((4, 0), np.float32)) == 0


@pytest.mark.parametrize("start", [30, 45, 60, 80])
def test_the_quietest_moment(start):
    """20 frames of silence; of the last 70, from frame 30 on."""
    loud = np.ones((3, 100), np.float32)
    loud[:, start : start + 20] = -1
    assert quietest(loud, 70) == start + 10
    # What lies before the last frames is not looked at.
    loud[:, :10] = -5
    assert quietest(loud, 70) == start + 10


def test_the_mean_of_the_bands_is_the_loudness():
    loud = np.zeros((2, 60), np.float32)
    # The first is lower in one band, the second in both.
    loud[0, 10:30], loud[:, 35:55] = -3, -2
    assert quietest(loud, 60) == 45
