"""Options of a transcription: what is out of range is named, and the defaults are those of openai/whisper."""

from __future__ import annotations

import pytest

from triform.runtime.errors import InputError
from triform.runtime.speech.options import TranscribeOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sing"}, "`task` must be transcribe or translate, not 'sing'"),
        ({"batch": 0}, "`batch` must be at least 1, not 0"),
        ({"num_beams": 0}, "`num_beams` must be at least 1"),
        ({"temperatures": ()}, "`temperatures` must be"),
        ({"temperatures": 0.5}, "`temperatures` must be"),
        ({"temperatures": ("0",)}, "`temperatures` must be"),
        ({"batch": "2"}, "`batch` must be a whole number, not '2'"),
        ({"max_new_tokens": 1.5}, "`max_new_tokens` must be a whole number, not 1.5"),
        ({"seed": "a"}, "`seed` must be a whole number, not 'a'"),
        ({"language": 7}, "`language` must be a text, not 7"),
        ({"initial_prompt": b"names"}, "`initial_prompt` must be a text, not b'names'"),
        ({"hotwords": ["a", "b"]}, r"`hotwords` must be a text, not \['a', 'b'\]"),
        ({"no_speech_threshold": "0.5"}, "`no_speech_threshold` must be a number"),
        ({"temperatures": (0.0, -1.0)}, "`temperatures` must be"),
        ({"no_speech_threshold": float("nan")}, "`no_speech_threshold` must be a number"),
        ({"compression_ratio_threshold": float("nan")}, "`compression_ratio_threshold` must be a number"),
        ({"logprob_threshold": float("nan")}, "`logprob_threshold` must be a number"),
        ({"temperatures": (0.0, float("inf"))}, "`temperatures` must be"),
        ({"temperatures": (float("nan"),)}, "`temperatures` must be"),
        ({"best_of": 0}, "`best_of` must be at least 1, not 0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1, not 0"),
        ({"seed": -1}, "`seed` must be"),
        ({"seed": 2**64}, "`seed` must be"),
        ({"batch": 2, "condition_on_previous_text": True}, "`condition_on_previous_text` is for one window after"),
        ({"temperatures": (0.0,), "best_of": 2}, "`best_of` is for sampling, and here the only temperature is 0"),
        ({"temperatures": (0.4, 0.8), "num_beams": 2}, "`num_beams` is for a temperature of 0, which is not tried"),
        (
            {"temperatures": (0.0, 0.8), "logprob_threshold": None, "compression_ratio_threshold": float("inf")},
            "`temperatures` has several, and no threshold that leads from one to the next",
        ),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        TranscribeOptions(**options)


def test_the_ends_of_ranges():
    options = TranscribeOptions(temperatures=(0.0, 2.5), best_of=1, batch=1, num_beams=1, max_new_tokens=1, seed=0)
    assert (options.conditioned, options.temperatures) == (True, (0.0, 2.5))
    assert TranscribeOptions(temperatures=(0.0,), seed=0).seed == 0
    assert TranscribeOptions(seed=2**64 - 1, no_speech_threshold=None).no_speech_threshold is None


def test_the_defaults_are_those_of_whisper():
    """Of `whisper.transcribe` and its command line, but for a single beam."""
    options = TranscribeOptions()
    assert options.temperatures == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    thresholds = options.compression_ratio_threshold, options.logprob_threshold, options.no_speech_threshold
    assert thresholds == (2.4, -1.0, 0.6)
    assert (options.best_of, options.num_beams) == (5, None)


@pytest.mark.parametrize(
    ("options", "conditioned"),
    [({}, True), ({"batch": 2}, False), ({"condition_on_previous_text": False}, False)],
)
def test_whether_a_window_knows_what_was_said_before(options, conditioned):
    assert TranscribeOptions(**options).conditioned is conditioned
