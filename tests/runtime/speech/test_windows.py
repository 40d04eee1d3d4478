"""Which part of a recording each window is, and when its segments are: what is heard in each window is given here.

Tokens from 100 on are times of 0.02 s each; 1, 2, … are words.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.bundle.media_info import AudioInfo, SpeechInfo
from triform.runtime.media.voice_activity import SpeechSpan
from triform.runtime.speech import windows
from triform.runtime.speech.fallback import DecodedWindow
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.recording import SamplesRecording
from triform.runtime.speech.windows import WindowReader

# 100 frames a second, in windows of 3000.
RATE, HOP = 1600, 16
INFO = AudioInfo("log_mel", RATE, 4, 0.0, chunk_length=30, win_length=40, n_fft=40, hop_length=HOP)
TIME, START, PREVIOUS, NOTHING = 100, 90, 91, [99]
SPEECH = SpeechInfo(TIME, 92, previous=PREVIOUS)


def at(seconds):
    return TIME + round(seconds * 50)


def sound(seconds):
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.fixture
def transcribed(monkeypatch):
    """From samples, what is heard in each window in turn, and options to (start, end, words) of the segments.

    Also the prompts, the features of each run, and the progress.
    """

    def call(samples, heard, temperatures=(), **options):
        prompts, features, progress = [], [], []
        answers = iter(heard)
        warmth = iter([*temperatures, *[0.0] * len(heard)])

        class Decoder:
            def __init__(self, model, options):
                pass

            def decode(self, encoded, asked):
                prompts.extend(asked)
                return [DecodedWindow(next(answers), "", -0.1, None, 1.0, next(warmth)) for _ in asked]

            def is_silence(self, result):
                return result.tokens == NOTHING

            def text(self, tokens):
                return "".join(f" {token}" for token in tokens if token < TIME)

        def read(arrays):
            features.append(arrays["input_features"])
            return arrays

        monkeypatch.setattr(windows, "WindowDecoder", Decoder)
        model = SimpleNamespace(
            info=SimpleNamespace(speech=SPEECH, decoder_start=START),
            manifest=SimpleNamespace(max_length=40),
            text=SimpleNamespace(target=None),
            reader=SimpleNamespace(read=read),
        )
        reader = WindowReader(model, INFO, TranscribeOptions(**options), progress.append)
        segments = list(reader.read(SamplesRecording(samples)))
        assert next(answers, None) is None
        found = [(one.start, one.end, one.text) for one in segments]
        return SimpleNamespace(segments=found, prompts=prompts, features=features, progress=progress)

    return call


def test_a_window_begins_where_the_segment_before_it_ended(transcribed):
    heard = [
        # What was begun at 20 s is heard again.
        [at(0), 1, at(10), at(10), 2, at(20), at(20), 3],
        # Without a pair of times the window is read to its end.
        [at(0), 4, at(29)],
        [at(0), 5],
    ]
    found = transcribed(sound(70), heard)
    assert found.segments == [(0, 10, " 1"), (10, 20, " 2"), (20, 49, " 4"), (50, 70, " 5")]
    assert found.progress == [20, 50, 70]
    assert found.prompts[0] == [START]
    assert found.prompts[1] == [PREVIOUS, at(0), 1, at(10), at(10), 2, at(20), START]
    assert found.prompts[2] == [PREVIOUS, *found.prompts[1][1:-1], at(0), 4, at(29), START]


def test_times_end_with_the_recording(transcribed):
    # Of the third nothing is within the recording.
    found = transcribed(sound(8), [[at(0), 1, at(7), at(7), 2, at(9), at(9), 3, at(10)]])
    assert found.segments == [(0, 7, " 1"), (7, 8, " 2")]


def test_nothing_is_heard_in_silence(transcribed):
    samples = np.concatenate([np.zeros(12 * RATE, np.float32), sound(33)])
    found = transcribed(samples, [[at(0), 1, at(5)], NOTHING])
    # Of silence 0.2 s are kept before what is heard, of a frame that hears it a little earlier.
    ((start, end, _),) = found.segments
    assert start == pytest.approx(11.8, abs=0.03)
    assert end == pytest.approx(start + 5)
    assert found.progress == pytest.approx([start + 30, 45])


def test_silence_of_less_than_a_second_is_part_of_a_window(transcribed):
    samples = np.concatenate([np.zeros(RATE * 9 // 10, np.float32), sound(5)])
    assert transcribed(samples, [[at(0), 1]]).segments == [(0, 5.9, " 1")]


@pytest.mark.parametrize(
    ("options", "temperature", "after"),
    [
        ({}, 0.5, [PREVIOUS, at(0), 1, START]),
        ({}, 0.6, [START]),
        ({"condition_on_previous_text": False}, 0.0, [START]),
    ],
)
def test_what_is_unreliable_is_not_told_to_the_next_window(transcribed, options, temperature, after):
    found = transcribed(sound(40), [[at(0), 1], [at(0), 2]], temperatures=(temperature,), **options)
    assert found.segments == [(0, 30, " 1"), (30, 40, " 2")]
    assert found.prompts == [[START], after]


def test_without_times_each_window_is_a_segment(transcribed):
    found = transcribed(sound(70), [[1, 2], [3], [4]], timestamps=False)
    assert found.segments == [(0, 30, " 1 2"), (30, 60, " 3"), (60, 70, " 4")]
    assert found.prompts[0] == [START, SPEECH.no_timestamps]


@pytest.mark.parametrize("batch", [1, 2])
def test_only_what_is_speech_is_heard(transcribed, monkeypatch, batch):
    """From 5 to 12.5 s and from 20 to 58 s, the second of which is two windows."""
    spans = [SpeechSpan(5, 12.5), SpeechSpan(20, 58)]
    monkeypatch.setattr(windows, "speech_of", lambda recording, options, longest: iter(spans if longest == 30 else []))
    found = transcribed(quiet_at(47, sound(70)), [[at(0), 1], [at(0), 2], [at(0), 3]], vad=True, batch=batch)
    cut = found.segments[1][1]
    assert cut == (50 if batch == 1 else pytest.approx(47.15, abs=0.12))
    assert found.segments == [(5, 12.5, " 1"), (20, cut, " 2"), (cut, 58, " 3")]
    first = found.features[0][0]
    assert (first[:, 750:] == 0).all()
    assert (first[:, :750] != 0).any(0).all()


def quiet_at(seconds, samples):
    """The same but for 0.3 s that are a thousandth as loud."""
    begin = round(seconds * RATE)
    samples[begin : begin + round(0.3 * RATE)] /= 1000
    return samples


def test_windows_of_a_batch_are_cut_where_it_is_quiet(transcribed):
    found = transcribed(quiet_at(27, sound(50)), [[at(0), 1], [at(0), 2]], batch=2)
    (_, cut, _), (start, end, _) = found.segments
    assert cut == start == pytest.approx(27.15, abs=0.12)
    assert end == 50
    (features,) = found.features
    assert (features[0, :, round(cut * 100) :] == 0).all()
    assert (features[0, :, : round(cut * 100)] != 0).any(0).all()
    assert found.progress == [cut, 50]


def test_the_rest_of_a_window_of_a_batch_is_read_again(transcribed):
    heard = [[at(0), 1, at(10), at(10)], [at(0), 2], [at(0), 3]]
    found = transcribed(quiet_at(27, sound(50)), heard, batch=2)
    cut = found.segments[1][1]
    assert found.segments == [(0, 10, " 1"), (10, cut, " 3"), (cut, 50, " 2")]
    first, second = found.features
    np.testing.assert_array_equal(second[0, :, :2000], first[0, :, 1000:])
    assert (second[0, :, 2000:] == 0).all()
    # What came before is told to no window of a batch.
    assert found.prompts == [[START]] * 3


def test_an_unfinished_end_of_a_window_of_a_batch_is_kept(transcribed):
    """The next window begins where it ends, and not with it."""
    found = transcribed(quiet_at(27, sound(50)), [[at(0), 1, at(10), at(10), 7], [at(0), 2]], batch=2)
    cut = found.segments[1][1]
    assert found.segments == [(0, 10, " 1"), (10, cut, " 7"), (cut, 50, " 2")]
    assert len(found.features) == 1


@pytest.mark.parametrize(("left", "runs"), [(1.5, 2), (0.7, 1)])
def test_less_than_a_second_is_not_read_again(transcribed, left, runs):
    cut = transcribed(quiet_at(27, sound(40)), [[at(0), 1], [at(0), 2]], batch=2).segments[0][1]
    pair = at(cut - left)
    heard = [[at(0), 1, pair, pair], [at(0), 2], *([[at(0), 3]] if runs == 2 else [])]
    found = transcribed(quiet_at(27, sound(40)), heard, batch=2)
    assert len(found.features) == runs
    assert len(found.segments) == 1 + runs
