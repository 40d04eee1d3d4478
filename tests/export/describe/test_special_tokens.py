"""Which special tokens a bundle names: the generation config's before the tokenizer's, and 0 is a token."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.export.describe.special_tokens import (
    decoder_start,
    encoder_tokens,
    generation_tokens,
    special_strings,
    tokens_of,
)
from triform.runtime.bundle.manifest import Tokens


def tokenizer(bos=1, eos=2, pad=3, mask=4):
    return SimpleNamespace(bos_token_id=bos, eos_token_id=eos, pad_token_id=pad, mask_token_id=mask)


def config(bos=None, eos=None, pad=None, **more):
    return SimpleNamespace(bos_token_id=bos, eos_token_id=eos, pad_token_id=pad, **more)


@pytest.mark.parametrize(
    ("generation", "own", "expected"),
    [
        (config(), tokenizer(), Tokens(1, [2], 3)), (config(5, 6, 7), tokenizer(), Tokens(5, [6], 7)),
        (config(0, 0, 0), tokenizer(), Tokens(0, [0], 0)), (config(None, [6, 7]), tokenizer(), Tokens(1, [6, 7], 3)),
        (config(), tokenizer(None, None, None), Tokens(None, [], None)),
        (config(None, []), tokenizer(), Tokens(1, [], 3)),
        (config(), tokenizer(0, 0, 0), Tokens(0, [0], 0)),
    ],
)  # fmt: skip
def test_of_models_that_write(generation, own, expected):
    assert generation_tokens(generation, own) == expected
    assert tokens_of(SimpleNamespace(model=SimpleNamespace(generation_config=generation), tokenizer=own)) == expected


def test_of_encoders():
    assert encoder_tokens(tokenizer()) == Tokens(1, [2], 3, 4)
    assert encoder_tokens(tokenizer(None, None, None, None)) == Tokens(None, [], None, None)
    assert encoder_tokens(tokenizer(0, 0, 0, 0)) == Tokens(0, [0], 0, 0)


def test_strings_by_name():
    given = SimpleNamespace(special_tokens_map={"bos_token": "<s>", "additional": ["<a>"], "pad_token": ""})
    assert special_strings(given) == {"bos_token": "<s>", "pad_token": ""}


def start_of(generation=None, whole=None, text=None, bos=None):
    def part(start):
        return SimpleNamespace() if start is None else SimpleNamespace(decoder_start_token_id=start)

    outer, inner = part(whole), part(text)
    outer.get_text_config = lambda decoder: inner
    own = part(generation)
    own.bos_token_id = bos
    return decoder_start(SimpleNamespace(model=SimpleNamespace(generation_config=own, config=outer)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, None), ({"generation": 5, "whole": 6, "text": 7, "bos": 8}, 5), ({"whole": 6, "text": 7, "bos": 8}, 6),
        ({"text": 7, "bos": 8}, 7), ({"bos": 8}, 8), ({"generation": 0, "whole": 6}, 0), ({"bos": 0}, 0),
        # The first of several; an empty list says nothing.
        ({"generation": [4, 5]}, 4), ({"generation": [], "whole": 6}, 6),
    ],
)  # fmt: skip
def test_what_decoding_starts_with(names, expected):
    assert start_of(**names) == expected
