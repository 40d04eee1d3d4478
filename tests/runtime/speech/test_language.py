"""The language of a recording: windows vote, those without speech do not, and what a model is for counts."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from tests.runtime.speech.test_prompt import INFO
from triform.runtime.errors import InputError
from triform.runtime.speech.fallback import DecodedWindow, WindowDecoder
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.prompt import LanguageVote, check_language
from triform.runtime.speech.transcription import transcribe


def logits(no_speech=0.0, **probabilities):
    """Of a vocabulary whose other tokens are impossible."""
    found = np.full(1000, -np.inf, np.float32)
    for code, probability in probabilities.items():
        found[INFO.languages[code]] = np.log(probability * (1 - no_speech))
    if no_speech:
        found[INFO.no_speech] = np.log(no_speech)
    return found


def voted(*windows, threshold=0.6):
    """The result, how sure it is, and how many windows it took."""
    vote = LanguageVote(INFO, threshold)
    count = 0
    while count < len(windows) and not vote.decided:
        vote.add(windows[count])
        count += 1
    found = vote.result()
    return found.code, pytest.approx(found.probability, abs=1e-6), count


NOISE = logits(de=0.9, en=0.05, pt=0.05)
ENGLISH = logits(en=0.8, de=0.1, pt=0.1)


def test_two_windows_decide():
    assert voted(ENGLISH, ENGLISH, NOISE) == ("en", 0.8, 2)
    assert voted(NOISE, ENGLISH, ENGLISH, NOISE) == ("en", (0.05 + 0.8 + 0.8) / 3, 3)
    assert voted(ENGLISH) == ("en", 0.8, 1)


def test_without_two_votes_the_likeliest_over_all_is_taken():
    assert voted(NOISE, ENGLISH) == ("de", 0.5, 2)
    unsure = logits(pt=0.4, en=0.35, de=0.25)
    assert voted(logits(de=0.5, en=0.45, pt=0.05), unsure) == ("en", 0.4, 2)


def test_a_number_added_to_all_logits_changes_nothing():
    for shift in (-900, 900):
        vote = LanguageVote(INFO, 0.6)
        vote.add(ENGLISH + np.float32(shift))
        assert vote.result().probability == pytest.approx(0.8, abs=1e-4)


def test_a_window_without_speech_says_nothing():
    music = logits(no_speech=0.7, de=0.9, en=0.1)
    assert voted(music, music, music, ENGLISH) == ("en", 0.8, 4)
    assert voted(music, music) == ("de", 0.9, 2)
    assert voted(music, music, threshold=None) == ("de", 0.9, 2)
    assert voted(music, ENGLISH, ENGLISH, threshold=None) == ("en", (0.1 + 0.8 + 0.8) / 3, 3)


def test_the_language_that_a_model_is_for():
    info = dataclasses.replace(INFO, default_language="pt")
    assert check_language(info, TranscribeOptions()) == "pt"
    assert check_language(info, TranscribeOptions(language="de")) == "de"
    assert check_language(info, TranscribeOptions(language="Auto")) is None
    english = dataclasses.replace(INFO, languages={})
    assert check_language(english, TranscribeOptions(language="English")) is None
    with pytest.raises(InputError, match="`language` auto has nothing to detect: this model knows English only"):
        check_language(english, TranscribeOptions(language="auto"))
    with pytest.raises(InputError, match="English only"):
        check_language(english, TranscribeOptions(language="de"))


class Stub:
    """A reader whose logits are those listed for each window, by its place among those that were encoded."""

    def __init__(self, windows, frames):
        self.windows, self.frames, self.encoded = windows, frames, []

    def read(self, inputs):
        self.encoded.append(float(inputs["input_features"][0].max()))
        place = len(self.encoded) - 1
        return SimpleNamespace(place=place, only=lambda rows: SimpleNamespace(place=place))

    def batch_step(self, encoded):
        found = self.windows[min(encoded.place, len(self.windows) - 1)]
        return SimpleNamespace(prefill=lambda rows: np.stack([found] * len(rows)))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_recording_that_begins_with_noise(whisper, monkeypatch, batch):
    """95 seconds of sound: the first window sounds like German, the others like English."""
    reader = Stub([NOISE, ENGLISH], None)
    info = dataclasses.replace(whisper.info, speech=INFO)
    model = SimpleNamespace(info=info, manifest=whisper.manifest, reader=reader, text=whisper.text)
    heard = DecodedWindow([1], " Hm.", -0.1, 0.0, 1.0, 0.0)
    prompts = []

    def decode(self, encoded, asked):
        prompts.extend(asked)
        return [heard] * len(asked)

    monkeypatch.setattr(WindowDecoder, "decode", decode)
    sound = np.random.default_rng(0).normal(0, 0.1, 95 * 16000).astype(np.float32)
    segments = list(transcribe(model, sound, TranscribeOptions(batch=batch, timestamps=False)))
    assert {(one.language, one.language_probability) for one in segments} == {("en", round((0.05 + 0.8 + 0.8) / 3, 4))}
    assert {tuple(prompt[-3:-1]) for prompt in prompts} == {(INFO.languages["en"], INFO.transcribe)}
    assert (segments[0].start, segments[-1].end) == (0.0, 95.0)
    # Three windows were listened to; the first of them is not encoded again where windows are read in turn.
    assert len(reader.encoded) == (3 + 3 if batch == 1 else 3 + 2)


def test_a_language_that_is_given_is_not_detected(whisper, monkeypatch):
    reader = Stub([NOISE], None)
    info = dataclasses.replace(whisper.info, speech=INFO)
    model = SimpleNamespace(info=info, manifest=whisper.manifest, reader=reader, text=whisper.text)
    heard = DecodedWindow([1], " Hm.", -0.1, 0.0, 1.0, 0.0)
    monkeypatch.setattr(WindowDecoder, "decode", lambda self, encoded, asked: [heard] * len(asked))
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    (segment,) = transcribe(model, sound, TranscribeOptions(language="pt", timestamps=False))
    assert (segment.language, segment.language_probability, len(reader.encoded)) == ("pt", None, 1)


def test_windows_without_speech_do_not_vote_even_if_there_are_no_others():
    """Two of them are for one language by a little, and the third is sure of another: the mean counts."""
    little, sure = logits(no_speech=0.7, de=0.6, en=0.4), logits(no_speech=0.7, en=1.0)
    assert voted(little, little, sure) == ("en", (0.4 + 0.4 + 1.0) / 3, 3)
    # With speech the two would decide.
    assert voted(logits(de=0.6, en=0.4), logits(de=0.6, en=0.4), logits(en=1.0)) == ("de", 0.6, 2)
