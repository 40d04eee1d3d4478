"""Models that say nothing of time: what they are given, and what comes of it. The model here hears how long it is."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.signals import RATE, silence, voice
from triform.runtime.bundle.manifest import EncoderDecoderInfo
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.media.voice_activity import SpeechSpan
from triform.runtime.speech import utterances
from triform.runtime.speech.fallback import DecodedWindow
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.transcription import transcribe
from triform.runtime.speech.utterances import cut_spans

START = 1


class Decoder:
    """Says how many samples each utterance has."""

    def __init__(self, model, options):
        pass

    def decode(self, given, prompts):
        assert all(prompt == [START] for prompt in prompts)
        lengths = given["attention_mask"].sum(1).tolist()
        return [DecodedWindow([length], f" {length}", -0.1, None, 0.5, 0.0) for length in lengths]


def model_of(kind="waveform", source="audio", targets=(), **options):
    audio = AudioInfo(kind, RATE, 1, 0.0, **options) if source == "audio" else None
    batches = []
    reader = SimpleNamespace(read=lambda arrays: batches.append(arrays) or arrays)
    names = [SimpleNamespace(name=name) for name in ("input_values", "attention_mask")]
    graphs = {"encoder": SimpleNamespace(inputs=names)}
    manifest = SimpleNamespace(graphs=graphs, task="text2text-generation", model_name="listener")
    text = SimpleNamespace(forced=lambda language: [], languages=SimpleNamespace(targets=dict.fromkeys(targets)))
    info = EncoderDecoderInfo(source, START, audio=audio)
    return SimpleNamespace(info=info, manifest=manifest, reader=reader, text=text, batches=batches)


@pytest.fixture(autouse=True)
def decoder(monkeypatch):
    monkeypatch.setattr(utterances, "WindowDecoder", Decoder)


def test_one_utterance():
    model = model_of()
    samples = voice(5)
    (segment,) = transcribe(model, samples)
    assert (segment.start, segment.end, segment.text) == (0.0, 5.0, f" {5 * RATE}")
    np.testing.assert_array_equal(model.batches[0]["input_values"], samples[None])


@pytest.mark.parametrize("batch", [1, 2])
def test_long_sound_is_cut_at_pauses(sounds, batch):
    model = model_of()
    samples = np.concatenate([part for sound in [*sounds, *sounds] for part in (sound, silence(2))])
    done = []
    found = list(transcribe(model, samples, TranscribeOptions(batch=batch), progress=done.append))
    assert len(found) > 1
    assert all(segment.end - segment.start <= 30 for segment in found)
    for segment in found:
        begin, end = (round(time * RATE) for time in (segment.start, segment.end))
        assert int(segment.text) == pytest.approx(end - begin, abs=RATE / 50)
    assert max(len(arrays["input_values"]) for arrays in model.batches) == batch
    assert done == sorted(done)


def test_sound_longer_than_a_model_reads_is_cut():
    model = model_of(longest=4.0)
    samples = np.concatenate([part for _ in range(3) for part in (voice(3), silence(2))])
    found = list(transcribe(model, samples))
    assert len(found) >= 3
    assert max(arrays["input_values"].shape[1] for arrays in model.batches) <= 4 * RATE


def test_a_model_of_several_languages_is_told_which_to_write():
    with pytest.raises(InputError, match="this model needs `language`: it writes deu, eng"):
        transcribe(model_of(targets=["eng", "deu"]), voice(1))


def test_silence_is_not_heard():
    assert list(transcribe(model_of(), silence(3))) == []
    assert list(transcribe(model_of(), np.zeros(0, np.float32))) == []


def test_cutting():
    """Samples 0 to 99 in blocks of 7."""
    samples = np.arange(100, dtype=np.float32)
    blocks = [samples[i : i + 7] for i in range(0, 100, 7)]
    spans = [SpeechSpan(0, 1), SpeechSpan(1, 1.5), SpeechSpan(3, 6), SpeechSpan(9, 12)]
    found = [part for _, part in cut_spans(iter(blocks), spans, 10)]
    for part, (begin, end) in zip(found, [(0, 10), (10, 15), (30, 60), (90, 100)], strict=True):
        np.testing.assert_array_equal(part, samples[begin:end])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"task": "translate"}, "`task` translate"),
        ({"word_timestamps": True}, "`word_timestamps`"),
        ({"hotwords": "Anna"}, "`hotwords`"),
        ({"initial_prompt": "Anna"}, "`initial_prompt`"),
    ],
)
def test_options_of_other_models(options, name):
    with pytest.raises(InputError, match=f"leave out {name}"):
        transcribe(model_of(), voice(1), TranscribeOptions(**options))


@pytest.mark.parametrize(
    "options", [{"condition_on_previous_text": True}, {"timestamps": False}, {"no_speech_threshold": 0.3}]
)
def test_options_without_effect(options):
    with pytest.raises(InputError, match=f"`{next(iter(options))}` has no effect with this model"):
        transcribe(model_of(), voice(1), TranscribeOptions(**options))


def test_a_model_of_texts():
    with pytest.raises(UnsupportedError, match=r"listener reads text, not audio: use `EncoderDecoder\.generate`"):
        transcribe(model_of(source="text"), voice(1))


@pytest.mark.parametrize(("samples", "heard"), [(1599, False), (1600, True), (1601, True)])
def test_a_tenth_of_a_second_is_heard(samples, heard):
    assert bool(list(transcribe(model_of(), voice(1)[2000 : 2000 + samples]))) is heard


def test_no_more_is_read_than_the_span_needs():
    read = []

    def blocks():
        for start in range(0, 100, 10):
            read.append(start)
            yield np.arange(start, start + 10, dtype=np.float32)

    spans = cut_spans(blocks(), [SpeechSpan(0.5, 1.5), SpeechSpan(4.0, 5.0)], 10)
    assert next(spans)[1].tolist() == list(range(5, 15)) and read == [0, 10]
    assert next(spans)[1].tolist() == list(range(40, 50)) and read == [0, 10, 20, 30, 40]


def test_an_encoder_that_takes_something_else_is_named():
    for names in (["input_ids", "bbox"], ["attention_mask"]):
        model = model_of()
        model.manifest.graphs["encoder"].inputs = [SimpleNamespace(name=name) for name in names]
        with pytest.raises(
            BundleError, match=f"the encoder takes {', '.join(names)}, not audio; export the model again"
        ):
            list(transcribe(model, voice(1)))
