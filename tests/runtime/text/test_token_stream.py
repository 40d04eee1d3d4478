"""Texts that are tokenized in parts: the same tokens as at once, with little in memory where tokens agree."""

from __future__ import annotations

import io
import itertools
import random
import types

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from triform.runtime.text.token_stream import ids_around, stream_ids


def made(pattern, pieces, template=None):
    """A tokenizer of what a pattern splits a text into; what is not a piece is 0."""
    tokenizer = Tokenizer(
        models.WordLevel({"?": 0, "<s>": 1, "</s>": 2, **{piece: i for i, piece in enumerate(pieces, 3)}}, "?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


LETTERS = made(r"[\s\S]", "abc ")
PAIRS = made(r"a[\s\S]|[\s\S]", ["a", "b", "c", "aa", "ab", "ac"])
# The first two letters of a text are one token: where a part begins, it has a token that the whole has not.
FIRST = made(r"\A[\s\S]{2}|[\s\S]", ["a", "b", "c", *map("".join, itertools.product("abc", repeat=2))])


class File(io.StringIO):
    """Remembers how much was asked for."""

    def __init__(self, text):
        super().__init__(text)
        self.asked = []

    def read(self, size=-1):
        self.asked.append(size)
        return super().read(size)


@pytest.mark.parametrize("tokenizer", [LETTERS, PAIRS, FIRST], ids=["letters", "pairs", "first two"])
@pytest.mark.parametrize("part", [1, 7, 64, 65, 100])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128, 500])
def test_as_at_once(tokenizer, part, length):
    text = "".join(random.Random(length).choices("abc", k=length))
    file = File(text)
    assert list(stream_ids(tokenizer, file, part)) == tokenizer.encode(text).ids
    assert set(file.asked) == {part}


def test_parts_that_never_agree_are_tokenized_as_one():
    """Of a's in a row two are a token: from another first letter on, all tokens are others."""
    text = "b" + "a" * 301
    assert list(stream_ids(PAIRS, io.StringIO(text), 99)) == PAIRS.encode(text).ids


def test_it_is_not_read_ahead():
    """The text of two parts is enough for the tokens of the first, three quarters of it at least."""
    file = File("abc" * 1000)
    found = stream_ids(LETTERS, file, 100)
    assert isinstance(found, types.GeneratorType) and file.asked == []
    first = [next(found) for _ in range(75)]
    assert first == [3, 4, 5] * 25 and len(file.asked) == 2


@pytest.mark.parametrize(
    ("template", "around"),
    [
        (None, ([], [])), ("<s> $0 </s>", ([1], [2])), ("$0 </s> </s>", ([], [2, 2])), ("<s> <s> $0", ([1, 1], [])),
    ],
)  # fmt: skip
def test_special_tokens_around_a_text(template, around):
    tokenizer = made(r"[\s\S]", "abc", template and [*template.split()])
    assert ids_around(tokenizer) == around
    text = "abcab"
    assert list(stream_ids(tokenizer, io.StringIO(text), 2)) == [*around[0], 3, 4, 5, 3, 4, *around[1]]
