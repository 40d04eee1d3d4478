"""Text and times of words equal those of transformers' pipeline, also of long recordings and in batches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.checkpoints.ctc import TOKENS
from triform.export.samples.voices import synthetic_voice
from triform.runtime.speech.options import TranscribeOptions

RATE = 16000


def _spoken(segments):
    return "".join(segment.text for segment in segments).strip()


@pytest.mark.parametrize("seconds", [0.42, 3.217, 67.3])
def test_text_and_words(ctc_model, pipeline, seconds):
    sound = synthetic_voice(seconds, RATE, 7)
    expected = pipeline(
        {"raw": sound, "sampling_rate": RATE}, chunk_length_s=30, stride_length_s=5, return_timestamps="word"
    )
    segments = ctc_model.transcribe(sound, TranscribeOptions(word_timestamps=True, batch=2))
    assert _spoken(segments) == expected["text"]
    words = [word for segment in segments for word in segment.words]
    assert "".join(word.text for word in words).strip() == expected["text"]
    times = {(round(start, 3), round(end, 3)) for start, end in (chunk["timestamp"] for chunk in expected["chunks"])}
    # Without spaces a word that lasts too long is cut; its parts lie within it.
    short = {(start, end) for start, end in times if end - start <= 7}
    assert short <= {(word.start, word.end) for word in words}
    assert expected["text"]


def test_a_batch_equals_single_runs(ctc_model):
    sounds = [synthetic_voice(seconds, RATE, seed) for seed, seconds in enumerate((1.31, 2.5, 0.77, 2.5))]
    together = ctc_model.log_probs([*sounds, np.zeros(20, np.float32)])
    for row, sound in zip(together, sounds, strict=False):
        np.testing.assert_allclose(row, ctc_model.log_probs([sound])[0], atol=1e-5)
    # Less than a frame of sound has no frames.
    assert together[-1].shape == (0, len(TOKENS))


def test_digital_silence_is_no_failure(ctc_model, pipeline):
    sound = np.zeros(RATE, np.float32)
    expected = pipeline({"raw": sound, "sampling_rate": RATE})["text"]
    assert _spoken(ctc_model.transcribe(sound)) == expected
    assert ctc_model.transcribe(np.zeros(0, np.float32)) == []
