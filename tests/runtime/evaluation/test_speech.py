"""Wrong words and characters, counted by hand, of a model that hears what is written here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.errors import InputError
from triform.runtime.evaluation import speech
from triform.runtime.evaluation.speech import error_counts, evaluate_speech, spoken_words
from triform.runtime.speech.options import TranscribeOptions


@pytest.mark.parametrize(
    ("said", "heard", "words", "characters"),
    [
        ("a b c", "a b c", [0, 3], [0, 5]),
        # One is another, one more, one less.
        ("a b c", "a x c", [1, 3], [1, 5]),
        ("a b c", "a b c d", [1, 3], [2, 5]),
        ("a b c", "a c", [1, 3], [2, 5]),
        ("ab", "xyz uvw", [2, 1], [7, 2]),
    ],
)
def test_what_is_wrong_and_how_much_there_is(said, heard, words, characters):
    for exact in (True, False):
        assert error_counts([said], [heard], exact=exact) == [[*words, *characters]]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("It's HERE", "its here"),
        ("It\u2019s", "its"),
        ("one\u2014two, three.", "one two three"),
        ("5 \u20ac + 2", "5 2"),
        # NFKC makes one letter of a ligature two, and half-width letters full ones.
        ("\ufb01sh \uff21", "fish a"),
        ("  a \n b ", "a b"),
        ("\u0915\u0947", "\u0915\u0947"),
    ],
)
def test_what_can_be_heard(text, plain):
    assert spoken_words(text) == plain


@pytest.fixture
def model(monkeypatch):
    class Recording:
        def __init__(self, name, refuse):
            self.name = name
            if name == "damaged":
                refuse("damaged is cut off")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(speech, "open_audio", Recording)
    heard = {"one": ["The ", "cat."], "two": ["a dog ", "barks"]}
    segments = {name: [SimpleNamespace(text=text) for text in texts] for name, texts in heard.items()}
    return SimpleNamespace(transcribe=lambda audio, options: segments[audio.name])


def test_rates_are_over_all_recordings(model):
    measured = evaluate_speech(model, ["one", "two"], ["the hat", "a dog"], TranscribeOptions(), exact=False)
    # "the cat" for "the hat": a word of two, a letter of seven; "a dog barks": a word of two, six letters of five.
    assert measured.rows.tolist() == [[1, 2, 1, 7], [1, 2, 6, 5]]
    assert {one.name: one.compute(measured.rows) for one in measured.metrics} == pytest.approx(
        {"WER": 2 / 4, "CER": 7 / 12}
    )
    assert measured.scores.tolist() == [-1, -1] and measured.item == "recordings"
    exact = evaluate_speech(model, ["one"], ["the cat"], TranscribeOptions(), exact=True)
    assert exact.rows.tolist() == [[2, 2, 2, 7]]


def test_a_recording_that_is_cut_off_is_not_compared(model):
    with pytest.raises(InputError, match=r"damaged is cut off; a part of a recording cannot be compared"):
        evaluate_speech(model, ["damaged"], ["x"], TranscribeOptions(), exact=False)
