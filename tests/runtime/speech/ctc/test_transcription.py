"""Recordings in chunks and in stretches of speech, on a stand-in that hears a token in each frame."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.bundle.media_info import CtcInfo
from triform.runtime.errors import InputError
from triform.runtime.media.voice_activity import SpeechSpan, VoiceActivityOptions
from triform.runtime.speech.ctc import transcription
from triform.runtime.speech.ctc.transcription import check_ctc_options, transcribe_ctc
from triform.runtime.speech.options import TranscribeOptions

# Samples a second, and to a frame.
RATE, STEP = 20, 2


class Letters:
    """A letter for each token, and none for the blank."""

    def of(self, token):
        return chr(ord("a") + token)

    def joined(self, tokens):
        return "".join(map(self.of, tokens))


class Model:
    """Samples are tokens: a frame has the token of its first sample, so that every frame can be told from others."""

    ctc = CtcInfo(0, STEP, 0)
    audio = SimpleNamespace(sampling_rate=RATE, longest=3.0)
    frame_step = STEP
    pieces = Letters()

    def __init__(self):
        self.runs = []

    def log_probs(self, rows):
        self.runs.append([len(row) for row in rows])
        return [
            np.log(np.eye(26, dtype=np.float32)[row[::STEP][: len(row) // STEP].astype(int)] + 1e-9) for row in rows
        ]


class Recorded:
    """A recording of these samples in blocks of 7."""

    def __init__(self, samples):
        self.samples = np.asarray(samples, np.float32)

    def blocks(self, rate):
        assert rate == RATE
        return (self.samples[start : start + 7] for start in range(0, len(self.samples), 7))


def said(seconds):
    """Tokens 1 to 25 in turn, each for two samples."""
    return (np.arange(round(seconds * RATE)) // STEP) % 25 + 1


def heard(tokens):
    return "".join(map(Letters().of, tokens[::STEP]))


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_chunks_are_heard_as_a_whole(batch, beams):
    """Of 3 s, 60 samples, those inside give 40 to the text; the fractions of progress are where they end."""
    model, tokens, times = Model(), said(8.0), []
    options = TranscribeOptions(batch=batch, num_beams=beams)
    found = list(transcribe_ctc(model, Recorded(tokens), options, times.append))
    assert "".join(segment.text for segment in found) == heard(tokens)
    assert max(map(max, model.runs)) == 60
    ends = [2.5, 4.5, 6.5, 8.0]
    assert times == [ends[min(start + batch, 4) - 1] for start in range(0, 4, batch)]
    assert [len(run) for run in model.runs] == [min(batch, 4 - start) for start in range(0, 4, batch)]
    assert (found[0].start, found[-1].end) == (0.0, 8.0)
    assert all(segment.words == [] for segment in found)


def test_words_have_times_where_they_are_asked_for():
    options = TranscribeOptions(word_timestamps=True)
    ((word,),) = [segment.words for segment in transcribe_ctc(Model(), Recorded([1, 1, 2, 2]), options, print)]
    assert (word.text, word.start, word.end) == ("bc", 0.0, 0.2)


@pytest.mark.parametrize("batch", [1, 2])
def test_each_stretch_of_speech_is_heard_by_itself(monkeypatch, batch):
    spans, asked = [SpeechSpan(0.5, 1.0), SpeechSpan(2.0, 3.0), SpeechSpan(3.0, 3.5)], []

    def speech_of(recording, voice_activity, longest):
        asked.append((voice_activity, longest))
        return iter(spans)

    monkeypatch.setattr(transcription, "speech_of", speech_of)
    model, tokens, times = Model(), said(4.0), []
    options = TranscribeOptions(vad=True, batch=batch, voice_activity=VoiceActivityOptions())
    found = list(transcribe_ctc(model, Recorded(tokens), options, times.append))
    assert [(segment.start, segment.end) for segment in found] == [(0.5, 1.0), (2.0, 3.0), (3.0, 3.5)]
    assert [segment.text for segment in found] == [heard(tokens[10:20]), heard(tokens[40:60]), heard(tokens[60:70])]
    assert asked == [(options.voice_activity, 3.0)]
    assert model.runs == ([[10], [20], [10]] if batch == 1 else [[10, 20], [10]])
    assert times == ([1.0, 3.0, 3.5] if batch == 1 else [3.0, 3.5])


def test_nothing_is_heard_of_nothing():
    model, times = Model(), []
    assert list(transcribe_ctc(model, Recorded([]), TranscribeOptions(), times.append)) == []
    assert model.runs == times == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"language": "de"}, "`language`"), ({"task": "translate"}, "`task`"), ({"best_of": 2}, "`best_of`"),
        ({"temperatures": (0.0, 0.5)}, "`temperatures`"),
        ({"seed": 0}, "`seed`"), ({"timestamps": False}, "`timestamps`"),
        ({"max_new_tokens": 5}, "`max_new_tokens`"), ({"initial_prompt": ""}, "`initial_prompt`"),
    ],
)  # fmt: skip
def test_options_of_other_models_are_refused_before_anything_is_heard(options, named):
    model = Model()
    with pytest.raises(InputError, match=f"^{named} is for models with a prompt and sampling"):
        transcribe_ctc(model, Recorded(said(1)), TranscribeOptions(**options), print)
    assert model.runs == []


def test_settings_of_silence_need_that_it_is_looked_for():
    settings = VoiceActivityOptions()
    with pytest.raises(InputError, match=r"^`voice_activity` is of `vad`, which is off; leave it out$"):
        check_ctc_options(TranscribeOptions(voice_activity=settings))
    check_ctc_options(TranscribeOptions(voice_activity=settings, vad=True))
    check_ctc_options(TranscribeOptions(word_timestamps=True, vad=True, batch=3, num_beams=2))
