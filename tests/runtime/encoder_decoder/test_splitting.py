"""Texts that are cut for a model of a few words, whose prefix and languages count as tokens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.encoder_decoder.splitting import check_reads_texts, splitter_for
from triform.runtime.errors import InputError, UnsupportedError


def model(most, asked=None, **info):
    """One token a word, and one at the end."""

    def length(text, **languages):
        if asked is not None:
            asked.append((text, languages))
        return len(text.split()) + 1

    return SimpleNamespace(
        text=SimpleNamespace(max_length=most, length=length),
        info=SimpleNamespace(**{"source": "text", "prefix": None, "tasks": {}, **info}),
        manifest=SimpleNamespace(task="automatic-speech-recognition", model_name="small"),
    )


def test_a_prefix_takes_room_of_every_piece():
    text = "One two. Three four."
    assert [line.pieces for line in splitter_for(model(7), Ask(prefix="sum up: "), strict=False).lines(text)] == [
        [text]
    ]
    pieces = splitter_for(model(6), Ask(prefix="sum up: "), strict=False).lines(text)
    assert [line.pieces for line in pieces] == [["One two.", "Three four."]]
    asked = []
    splitter_for(model(7, asked), Ask(prefix="sum up: ", source_lang="de", target_lang="en"), strict=False).lines(
        "One."
    )
    assert asked == [("sum up: One.", {"source_lang": "de", "target_lang": "en"})]


@pytest.mark.parametrize("strict", [False, True])
def test_a_sentence_that_is_too_long(strict):
    splitter = splitter_for(model(3), Ask(prefix=""), strict=strict)
    if strict:
        with pytest.raises(InputError, match="text 1 has a sentence longer than the model's 3 tokens"):
            splitter.lines("One two three four.")
    else:
        assert [line.pieces for line in splitter.lines("One two three four.")] == [["One two", "three four."]]
        assert splitter.cut == 1


def test_models_that_read_something_else():
    check_reads_texts(model(3))
    for source in ("audio", "image"):
        with pytest.raises(UnsupportedError, match=f"^small reads {source}, not texts: use `.*transcribe"):
            check_reads_texts(model(3, source=source))
