"""A recording transcribed where inputs are copied to a device when they are bound."""

from __future__ import annotations

import triform
from tests.helpers.device_session import DeviceSession
from triform.runtime.graphs.session import open_session
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.transcription import transcribe


def test_text_and_times_are_those_of_the_cpu(whisper, whisper_bundle, sounds, monkeypatch):
    sessions = []

    def on_device(*arguments, **options):
        sessions.append(DeviceSession(open_session(*arguments, **options)))
        return sessions[-1]

    monkeypatch.setattr("triform.runtime.encoder_decoder.model.open_session", on_device)
    options = TranscribeOptions(word_timestamps=True, temperatures=(0.0,))
    expected, found = (list(transcribe(model, sounds[1], options)) for model in (whisper, triform.load(whisper_bundle)))
    assert [(segment.text, segment.tokens, segment.words) for segment in found] == [
        (segment.text, segment.tokens, segment.words) for segment in expected
    ]
    assert sessions[1].runs > len(expected[0].tokens) > 10
