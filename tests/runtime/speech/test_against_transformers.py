"""What a bundle writes down, against transformers' `generate` on the same sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperTokenizer

from tests.helpers.sounds import RATE
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.transcription import transcribe

# transformers' own defaults: one greedy answer a window, whatever it is like.
PLAIN = {
    "temperatures": (0.0,),
    "compression_ratio_threshold": None,
    "logprob_threshold": None,
    "no_speech_threshold": None,
    "condition_on_previous_text": False,
}
FIRST_TIME, END, START, NO_SPEECH = 50363, 50256, 50257, 50361


def features_of(extractor, samples, **options):
    return extractor(samples, sampling_rate=RATE, return_tensors="pt", **options).input_features


def generated(reference, features, **options):
    """Segments of transformers: start, end, tokens.

    Where a window does not end with its last segment, transformers repeats the time that this one ended at.
    """
    found = reference.generate(features, return_timestamps=True, return_segments=True, **options)["segments"][0]
    segments = []
    for segment in found:
        tokens = segment["tokens"].tolist()
        doubled = len(tokens) > 2 and min(tokens[-2:]) >= FIRST_TIME
        segments.append((float(segment["start"]), float(segment["end"]), tokens[:-1] if doubled else tokens))
    return segments


def assert_same(found, expected, duration):
    assert [segment.tokens for segment in found] == [tokens for *_, tokens in expected]
    times = [(segment.start, segment.end) for segment in found]
    # transformers lets what is said last go on after the sound's end.
    bounded = [(start, min(end, duration)) for start, end, _ in expected]
    np.testing.assert_allclose(times, bounded, rtol=0, atol=0.006)


def test_one_window_without_times(whisper, reference, extractor, sounds):
    for samples in sounds[:3]:
        expected = reference.generate(features_of(extractor, samples), return_timestamps=False)[0].tolist()
        (segment,) = transcribe(whisper, samples, TranscribeOptions(**PLAIN, timestamps=False))
        assert segment.tokens == [token for token in expected if token != END]


def test_one_window_with_times(whisper, reference, extractor, sounds):
    for samples in sounds[2:4]:
        expected = generated(reference, features_of(extractor, samples))
        found = list(transcribe(whisper, samples, TranscribeOptions(**PLAIN)))
        assert found
        # transformers goes on through the silence that fills up the window.
        assert_same(found, expected[: len(found)], len(samples) / RATE)


def test_beams(whisper, reference, extractor, sounds):
    for samples in sounds[1:2]:
        expected = generated(reference, features_of(extractor, samples), num_beams=3)
        found = list(transcribe(whisper, samples, TranscribeOptions(**PLAIN, num_beams=3)))
        assert_same(found, expected[: len(found)], len(samples) / RATE)


@pytest.mark.parametrize("conditioned", [False, True])
def test_long_sound(whisper, reference, extractor, long_sound, conditioned):
    features = features_of(extractor, long_sound, truncation=False, padding="longest")
    expected = generated(reference, features, condition_on_prev_tokens=conditioned)
    options = TranscribeOptions(**{**PLAIN, "condition_on_previous_text": conditioned})
    assert_same(list(transcribe(whisper, long_sound, options)), expected, len(long_sound) / RATE)


def test_initial_prompt(whisper, reference, extractor, long_sound, whisper_folder):
    text = "DASHWOOD, coldhearted, illdisposed"
    tokenizer = WhisperTokenizer.from_pretrained(whisper_folder)
    prompt = torch.from_numpy(tokenizer.get_prompt_ids(text))
    features = features_of(extractor, long_sound, truncation=False, padding="longest")
    expected = generated(reference, features, prompt_ids=prompt)
    found = list(transcribe(whisper, long_sound, TranscribeOptions(**PLAIN, initial_prompt=text)))
    assert_same(found, expected, len(long_sound) / RATE)


def test_probabilities(whisper, reference, extractor, sounds):
    samples = sounds[0]
    features = features_of(extractor, samples)
    output = reference.generate(
        features, return_dict_in_generate=True, output_scores=True, force_unique_generate_call=True
    )
    with torch.no_grad():
        start = reference(features, decoder_input_ids=torch.tensor([[START]])).logits[0, 0]
    tokens = output.sequences[0, -len(output.scores) :]
    expected = reference._retrieve_avg_logprobs([score[0] for score in output.scores], tokens, 0.0)
    (segment,) = transcribe(whisper, samples, TranscribeOptions(**PLAIN, timestamps=False))
    assert segment.tokens == tokens[:-1].tolist()
    assert segment.avg_logprob == pytest.approx(float(expected), abs=1e-4)
    assert segment.no_speech_prob == pytest.approx(float(start.softmax(-1)[NO_SPEECH]), abs=1e-5)
