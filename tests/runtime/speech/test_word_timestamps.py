"""Times of the words of a window, from attention that is written out: each token looks at frames of its own."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.errors import BundleError, UnsupportedError
from triform.runtime.speech.transcript import Segment
from triform.runtime.speech.words.timestamps import WordFinder

EOS, NO_TIMESTAMPS, FIRST_TIME = 90, 99, 100
TEXT = {1: " a", 2: " b", 3: " c", 4: " d", 5: "e"}
# Two seconds, in frames of 0.02 s.
FRAMES, CHUNK = 100, 2


class Model:
    """Attends behind `prompt` tokens to the frames that begin at `begins`; each token is as likely as not."""

    def __init__(self, begins, prompt=3, max_length=30):
        self.begins, self.prompt, self.asked = begins, prompt, []
        self.reader = SimpleNamespace(attends=True, attend=self.attend)
        speech = SimpleNamespace(timestamp_begin=FIRST_TIME, no_timestamps=NO_TIMESTAMPS)
        self.info = SimpleNamespace(speech=speech, audio=SimpleNamespace(chunk_length=CHUNK))
        self.manifest = SimpleNamespace(max_length=max_length, tokens=SimpleNamespace(eos=[EOS]))
        self.text = SimpleNamespace(target=SimpleNamespace(decode=self.decode))

    def decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return "".join(TEXT[token] for token in tokens)

    def attend(self, encoded, ids):
        self.asked.append(list(ids))
        logits = np.full((len(ids), 128), -100, np.float32)
        for place, token in enumerate(ids[1:]):
            logits[place, [token, 127]] = 0
        weights = np.full((2, len(ids), FRAMES), 0.01, np.float32)
        edges = [*self.begins, FRAMES]
        for row, (begin, end) in enumerate(pairwise(edges)):
            weights[:, self.prompt - 1 + row, begin:end] = 1
        return logits, weights


def segment(start, end, tokens):
    return Segment(start, end, "", tokens, -0.1, None, 1.0, 0.0, language="en")


def found(model, segments, start=(80, 81), offset=10.0, length=float(CHUNK)):
    return [
        [(word.text, word.start, word.end, round(word.probability, 3)) for word in one.words or ()]
        for one in WordFinder(model).add(None, list(start), segments, offset, length)
    ]


@pytest.mark.parametrize("start", [(80, 81), (80, 81, NO_TIMESTAMPS)])
def test_words_begin_where_their_first_token_looks(start):
    model = Model([0, 10, 20, 30, 40])
    one = segment(10.0, 10.8, [FIRST_TIME, 1, 2, 5, 3, FIRST_TIME + 40])
    # Two tokens are one word, and as likely as the mean of both.
    assert found(model, [one], start) == [[(" a", 10.0, 10.2, 0.5), (" be", 10.2, 10.6, 0.5), (" c", 10.6, 10.8, 0.5)]]
    # The transcript is read once more without times.
    assert model.asked == [[80, 81, NO_TIMESTAMPS, 1, 2, 5, 3, EOS]]


def test_a_word_after_a_pause_is_as_long_as_two_usual_ones():
    """Words of 0.2 s. The second segment's first word ends 1.2 s after the first segment: it has 0.4 s at most."""
    model = Model([0, 10, 70, 80, 90])
    segments = [segment(10.0, 10.2, [1]), segment(10.2, 11.8, [2, 3, 4])]
    assert found(model, segments) == [
        [(" a", 10.0, 10.2, 0.5)],
        [(" b", 11.0, 11.4, 0.5), (" c", 11.4, 11.6, 0.5), (" d", 11.6, 11.8, 0.5)],
    ]


def test_only_frames_of_audio_count():
    """Of 0.9 s of audio: what looks at the 1.1 s behind it looks nowhere."""
    model = Model([0, 20, 40])
    ((first, second),) = found(model, [segment(10.0, 10.9, [1, 2])], length=0.9)
    assert first[1:3] == (10.0, 10.4) and second[1:3] == (10.4, 10.8)


def test_tokens_that_do_not_fit_have_no_words():
    # Of ten tokens three stand before, and one behind.
    model = Model([0, 10, 20, 30], max_length=7)
    (words,) = found(model, [segment(10.0, 11.0, [1, 2, 3, 4])])
    assert [word[0] for word in words] == [" a", " b", " c"]
    assert model.asked == [[80, 81, NO_TIMESTAMPS, 1, 2, 3, EOS]]


def test_segments_without_text_stay_as_they_are():
    model, silent = Model([0]), [segment(10.0, 11.0, [FIRST_TIME, FIRST_TIME + 50])]
    assert WordFinder(model).add(None, [80], silent, 10.0, 2.0) == silent
    assert model.asked == []


def test_bundles_that_say_nothing_of_words():
    model = Model([0])
    model.reader.attends = False
    with pytest.raises(UnsupportedError, match="this bundle has no word timestamps"):
        WordFinder(model)
    model.reader.attends, model.info.speech = True, None
    with pytest.raises(BundleError, match="the manifest lacks the timestamp tokens"):
        WordFinder(model)
