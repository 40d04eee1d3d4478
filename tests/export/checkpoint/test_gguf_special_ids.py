"""Special tokens of GGUF files, by llama.cpp's rules: ids of the keys, its defaults, and what ends an answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from triform.export.checkpoint.gguf.vocabulary.special_tokens import SpecialIds, special_ids, token_kinds
from triform.export.checkpoint.gguf.vocabulary.tokenizer import _of_whole_texts
from triform.runtime.errors import ExportError

NORMAL, CONTROL = 1, 3


def a_file(tokens, model="gpt2", types=None, **ids):
    values = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.model": model, "tokenizer.ggml.token_type": types}
    values |= {f"tokenizer.ggml.{name}": value for name, value in ids.items()}
    return SimpleNamespace(path=Path("folder/model.gguf"), values={k: v for k, v in values.items() if v is not None})


def letters(count):
    return [f"t{number}" for number in range(count)]


def found(file):
    ids = special_ids(file)
    return (ids.bos, ids.eos, ids.unknown, ids.separator, ids.pad, ids.mask)


@pytest.mark.parametrize(
    ("model", "count", "expected"),
    [
        # The default ids of llama-vocab.cpp, as far as the vocabulary has them.
        ("llama", 5, (1, 2, 0, None, None, None)),
        ("llama", 3, (1, 2, 0, None, None, None)),
        ("llama", 2, (1, None, 0, None, None, None)),
        ("t5", 5, (None, 1, 2, None, 0, None)),
        ("bert", 104, (101, None, 100, 102, 0, 103)),
        ("bert", 103, (101, None, 100, 102, 0, None)),
        ("gpt2", 500, (None,) * 6),
    ],
)
def test_defaults(model, count, expected):
    assert found(a_file(letters(count), model)) == expected


def test_the_ids_of_a_file():
    keys = ("bos", "eos", "unknown", "seperator", "padding", "mask")
    own = {f"{name}_token_id": number for number, name in enumerate(keys)}
    assert found(a_file(letters(6), **own)) == (0, 1, 2, 3, 4, 5)
    # -1 is no token, but the default if there is one.
    none = dict.fromkeys(own, 2**32 - 1)
    assert found(a_file(letters(6), **none)) == (None,) * 6
    assert found(a_file(letters(6), "llama", **none)) == (1, 2, 0, None, None, None)


def test_what_begins_a_text_of_bert_may_be_called_cls():
    assert special_ids(a_file(letters(6), cls_token_id=4)).bos == 4
    assert special_ids(a_file(letters(6), cls_token_id=4, bos_token_id=0)).bos == 0


@pytest.mark.parametrize("token", [-1, 6, 2**32 - 2])
def test_an_id_beyond_the_vocabulary(token):
    with pytest.raises(ExportError, match=rf"^model\.gguf has tokenizer\.ggml\.eos_token_id = {token}, but 6 tokens$"):
        special_ids(a_file(letters(6), eos_token_id=token))


@pytest.mark.parametrize("tokens", [None, [], "abc"])
def test_a_file_without_a_vocabulary(tokens):
    with pytest.raises(ExportError, match=r"^model\.gguf has no vocabulary \(tokenizer\.ggml\.tokens\)$"):
        special_ids(a_file(tokens))


def test_ends_are_in_their_order_and_once():
    tokens = [*letters(4), "<|end|>", "</s>", "<|eot_id|>", "<eos>"]
    types = [NORMAL] * 5 + [CONTROL] * 3
    ends = {"eos_token_id": 3, "eot_token_id": 2, "eom_token_id": 3, "eos_token_ids": np.array([1, 2])}
    # eos, eot, eom, those of the list, and those whose texts are known.
    assert special_ids(a_file(tokens, types=types, **ends)).ends == [3, 2, 1, 6, 4, 7, 5]
    # As a word of the vocabulary, </s> is text.
    assert special_ids(a_file(tokens, types=[NORMAL] * 8)).ends == [6, 4, 7]
    assert special_ids(a_file(letters(4), eos_token_ids=2)).ends == [2]


def test_the_end_of_a_message_is_not_that_of_an_answer():
    tokens = ["<|end|>", "<|return|>", "<|call|>"]
    assert special_ids(a_file(tokens, types=[CONTROL] * 3)).ends == [1, 2]
    assert special_ids(a_file(tokens[:2], types=[CONTROL] * 2)).ends == [0, 1]


def test_kinds():
    assert token_kinds(a_file(["a", "<eos>"]), ["a", "<eos>"]) == [NORMAL, NORMAL]
    file = a_file(["a", "<eos>"], types=[NORMAL, NORMAL, 5])
    assert token_kinds(file, ["a", "<eos>"]) == [NORMAL, CONTROL]
    with pytest.raises(ExportError, match=r"^model\.gguf has 3 tokens but 2 kinds of tokens$"):
        token_kinds(a_file(letters(3), types=[NORMAL, NORMAL]), letters(3))


@pytest.mark.parametrize("prefixed", [True, False])
def test_spaces_around_a_text_come_back(prefixed):
    """SentencePiece puts one space before a text, and takes that one away again; those at its end stay."""
    none = SpecialIds(None, None, [], None, None, None, None)
    tokenizer = _of_whole_texts(["\u2581", "a", "\u2581a"], [("\u2581", "a")], none, prefixed)
    for text in ("a", "a a", "a ", " a", "a  "):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("a a").ids == ([2, 2] if prefixed else [1, 2])
