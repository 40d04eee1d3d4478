"""Options that are texts, as token ids of a tokenizer of words: spellings, breakers, stops, unknown tokens."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties
from triform.runtime.generation.processors.spelling import spell, stop_ids

# Pieces are single characters or one of these; a word that is not known has no token.
PIECES = {"a": 0, "b": 1, "c": 2, " ": 3, ":": 4, "\n": 5, "</s>": 6}
SIZE = len(PIECES)


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(models.BPE(vocab=PIECES, merges=[]))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.add_special_tokens([AddedToken("</s>", special=True)])
    return made


def spelled(tokenizer, **options):
    return spell(GenerationOptions(**options), tokenizer, SIZE, [6])


def test_bad_words_with_and_without_a_space(tokenizer):
    found = spelled(tokenizer, constraints=Constraints(bad_words=("ab", "c", " c")))
    assert found.bad_words_ids == ((0, 1), (3, 0, 1), (2,), (3, 2), (3, 3, 2))
    assert spelled(tokenizer).bad_words_ids == () and spelled(tokenizer).form is None


def test_breakers_are_the_last_token_behind_a(tokenizer):
    penalties = Penalties(dry_multiplier=1.0, dry_sequence_breakers=("b", ":\n"))
    assert spelled(tokenizer, penalties=penalties).dry_breakers == {1, 5}
    penalties = Penalties(dry_multiplier=1.0)
    # Of the usual ones the vocabulary has a line break and a colon; the others leave the a.
    assert spelled(tokenizer, penalties=penalties).dry_breakers == {0, 4, 5}
    assert spelled(tokenizer, penalties=Penalties()).dry_breakers == frozenset()
    off = Penalties(dry_multiplier=0.0)
    assert spelled(tokenizer, penalties=off).dry_breakers == frozenset()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logit_bias", lambda token: {0: 1.0, token: 1.0}), ("bad_words_ids", lambda token: ((0,), (1, token))),
        ("suppress_tokens", lambda token: (0, token)), ("begin_suppress_tokens", lambda token: (token,)),
        ("forced_bos_token_id", lambda token: token), ("forced_eos_token_id", lambda token: (token,)),
        ("forced_tokens", lambda token: {9: token}),
    ],
)  # fmt: skip
def test_tokens_of_the_vocabulary(tokenizer, name, value):
    spelled(tokenizer, constraints=Constraints(**{name: value(SIZE - 1)}))
    with pytest.raises(InputError) as caught:
        spelled(tokenizer, constraints=Constraints(**{name: value(SIZE)}))
    called = "bad_words" if name == "bad_words_ids" else name
    assert str(caught.value) == f"`{called}` names token {SIZE}; the vocabulary has {SIZE}, counted from 0"


def test_tokens_that_end_an_answer(tokenizer):
    assert stop_ids([], tokenizer, SIZE) == []
    assert stop_ids([2, "a", "</s>", SIZE - 1], tokenizer, SIZE) == [2, 0, 6, SIZE - 1]
    with pytest.raises(InputError) as caught:
        stop_ids([1, SIZE], tokenizer, SIZE)
    assert str(caught.value) == f"`stop_token` names token {SIZE}; the vocabulary has {SIZE}, counted from 0"
    for text, count in (("ab", 2), ("z", 0), ("", 0), ("az", 1)):
        with pytest.raises(InputError) as caught:
            stop_ids([text], tokenizer, SIZE)
        said = f"`stop_token` {text!r} is not one token of this model, but {count}; `stop` ends at a text"
        assert str(caught.value) == said
