"""What windows begin with, laid out as openai/whisper's decoding does, and the language of multilingual models."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.errors import InputError
from triform.runtime.speech.fallback import DecodedWindow, WindowDecoder
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.prompt import SpeechPrompt, check_language
from triform.runtime.speech.transcription import transcribe

START = 50257
INFO = SpeechInfo(
    1000, 999, languages={"en": 901, "de": 902, "pt": 903}, transcribe=911, translate=912, no_speech=920, previous=930
)
MANIFEST = SimpleNamespace(max_length=20)


class Spelled:
    def encode(self, text, add_special_tokens):
        assert text.startswith(" ")
        assert not add_special_tokens
        return SimpleNamespace(ids=[ord(letter) for letter in text])


def prompt_of(info=INFO, **options):
    return SpeechPrompt(info, MANIFEST, START, Spelled(), TranscribeOptions(**options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [START, 902, 911]),
        ({"task": "translate"}, [START, 902, 912]),
        ({"timestamps": False}, [START, 902, 911, 999]),
    ],
)
def test_the_start_of_a_window(options, expected):
    assert prompt_of(**options).start("de") == expected


def test_a_model_of_english_only():
    info = SpeechInfo(1000, 999)
    assert prompt_of(info).start(None) == [START]
    assert prompt_of(info, timestamps=False).start(None) == [START, 999]


def test_what_was_said_before():
    """Of a context of 20 tokens, 20 / 2 - 1 = 9 are for what was said before and for hotwords together."""
    assert prompt_of().before([]) == []
    assert prompt_of().before(range(1, 4)) == [930, 1, 2, 3]
    assert prompt_of().before(range(1, 31)) == [930, *range(22, 31)]
    spelled = [ord(letter) for letter in " Anna"]
    assert prompt_of(hotwords=" Anna ").before([]) == [930, *spelled]
    assert prompt_of(hotwords="Anna").before(range(1, 31)) == [930, *spelled, 27, 28, 29, 30]
    assert prompt_of(hotwords="Anna Bea Carl").before([1]) == [930, *(ord(letter) for letter in " Anna Bea")]
    assert prompt_of(initial_prompt="Anna").carried == spelled
    assert prompt_of(initial_prompt=" ").carried == []


def test_a_model_that_takes_no_text_before():
    info = dataclasses.replace(INFO, previous=None)
    assert prompt_of(info).before([1, 2]) == []
    with pytest.raises(InputError, match="leave out `hotwords`"):
        prompt_of(info, hotwords="Anna")


def test_languages():
    assert check_language(INFO, TranscribeOptions()) is None
    assert check_language(INFO, TranscribeOptions(language="DE")) == "de"
    with pytest.raises(InputError, match="no language 'xx'; it has de, en, pt"):
        check_language(INFO, TranscribeOptions(language="xx"))
    with pytest.raises(InputError, match="cannot translate"):
        check_language(dataclasses.replace(INFO, translate=None), TranscribeOptions(task="translate"))


def test_the_language_is_detected(whisper, reference, extractor, sounds, monkeypatch):
    """Some tokens stand in for languages: the likeliest after the start is taken."""
    features = extractor(sounds[1], sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        logits = reference(features, decoder_input_ids=torch.tensor([[START]])).logits[0, 0]
    tokens = {"en": 843, "de": 383, "pt": 314}
    expected = max(tokens, key=lambda code: float(logits[tokens[code]]))
    speech = dataclasses.replace(whisper.info.speech, languages=tokens)
    info = dataclasses.replace(whisper.info, speech=speech)
    model = SimpleNamespace(info=info, manifest=whisper.manifest, reader=whisper.reader, text=whisper.text)
    prompts = []
    heard = DecodedWindow([1], " Hm.", -0.1, 0.0, 1.0, 0.0)
    monkeypatch.setattr(WindowDecoder, "decode", lambda self, given, asked: prompts.extend(asked) or [heard])
    for language, code in ((None, expected), ("pt", "pt")):
        (segment,) = transcribe(model, sounds[1], TranscribeOptions(language=language))
        assert segment.language == code
        assert prompts.pop() == [START, tokens[code]]
