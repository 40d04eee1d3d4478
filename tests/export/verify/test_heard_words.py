"""Words that speech models write: as transformers', counted where the original understands, and bounded."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from triform.export.verify.heard_words import WordCount, heard_words
from triform.runtime.errors import TriformError

RATE = 16000
SILENCE = np.zeros(4 * RATE, np.float32)


class Model:
    """Writes what it is given for the recordings in turn."""

    def __init__(self, texts, *, speech=None, targets=(), longest=30.0, logprob=-0.2, ratio=1.1):
        self.texts, self.options, self.heard = list(texts), [], []
        self.info = SimpleNamespace(audio=SimpleNamespace(sampling_rate=RATE, longest=longest), speech=speech)
        self.text = SimpleNamespace(languages=SimpleNamespace(targets=targets))
        self.logprob, self.ratio = logprob, ratio

    def transcribe(self, samples, options):
        self.options.append(options)
        self.heard.append(samples)
        text = self.texts.pop(0)
        if text is None:
            raise TriformError("its logits are not numbers")
        logprob = -2.0 if text.startswith("?") else self.logprob
        return [SimpleNamespace(text=piece, avg_logprob=logprob, compression_ratio=self.ratio) for piece in [text]]


def test_changed_words_are_counted_as_evaluate_counts_them():
    """One word is replaced, one is added and one is missing, of nine; case and punctuation do not count."""
    original = WordCount(Model(["The cat sat, quietly.", "It was late; we left."]), [SILENCE] * 2)
    errors = original.errors(Model(["the bat sat quietly now", "It was late. We"]))
    assert (errors.words, errors.share) == (9, pytest.approx(3 / 9))
    assert original.errors(Model(["THE CAT SAT QUIETLY", "it was late we left"])).share == 0


def test_what_the_original_does_not_understand_is_left_out():
    original = WordCount(Model(["One two three.", "? four five", "Six."]), [SILENCE] * 3)
    assert original.words == 4
    assert original.errors(Model(["One two three", "seven"])).share == pytest.approx(1 / 4)
    assert WordCount(Model(["a a a a a"], ratio=3.0), [SILENCE]).words == 0


def test_a_model_that_cannot_transcribe_is_beyond_every_limit():
    assert WordCount(Model(["One."]), [SILENCE]).errors(Model([None])).share == math.inf


def test_transcripts_are_greedy_and_bounded():
    model = Model(["a", "b"], longest=2.0)
    heard_words(model, [SILENCE, SILENCE[:RATE]])
    assert [len(samples) for samples in model.heard] == [2 * RATE, RATE]
    assert [options.max_new_tokens for options in model.options] == [16, 8]
    assert {(options.num_beams, options.temperatures, options.timestamps) for options in model.options} == {
        (1, (0.0,), True)
    }
    of_whisper = Model(["a"], speech=SimpleNamespace())
    heard_words(of_whisper, [SILENCE])
    assert of_whisper.options[0].timestamps is False


@pytest.mark.parametrize(
    ("targets", "told"), [((), None), (("de", "en"), "en"), (("fra", "eng"), "eng"), (("de",), "de")]
)
def test_a_model_that_must_be_told_a_language_is_told_one(targets, told):
    model = Model(["a"], targets=targets)
    heard_words(model, [SILENCE])
    assert model.options[0].language == told
