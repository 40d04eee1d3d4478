"""The class of speech bundles that a user holds."""

from __future__ import annotations

import pytest

import triform


def test_a_recording_by_its_name_its_content_and_its_samples(whisper_bundle, speech_clips, sounds):
    model = triform.load_speech(whisper_bundle)
    path = speech_clips[0][0]
    with triform.open_audio(path, pytest.fail) as audio:
        segments = list(triform.transcribe(model, audio))
        assert model.transcribe(audio) == segments
    assert segments
    assert model.transcribe(path) == segments
    assert model.transcribe(path.read_bytes()) == segments
    assert [segment.text for segment in model.transcribe(sounds[0])] == [segment.text for segment in segments]


def test_any_loader_gives_a_speech_model(whisper_bundle):
    assert type(triform.load(whisper_bundle)) is triform.SpeechModel
    assert type(triform.load_encoder_decoder(whisper_bundle)) is triform.SpeechModel


def test_a_damaged_file_is_read_with_a_warning(whisper_bundle, speech_clips):
    content = speech_clips[0][0].read_bytes()
    model = triform.load_speech(whisper_bundle)
    with pytest.warns(UserWarning, match="is cut off or damaged"):
        assert model.transcribe(content[: len(content) // 2])


def test_a_bundle_for_texts_is_refused(exported_family):
    with pytest.raises(triform.UnsupportedError, match="not for speech"):
        triform.load_speech(exported_family("t5")[1])
