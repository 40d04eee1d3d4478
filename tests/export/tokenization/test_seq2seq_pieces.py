"""Sentencepiece models with a vocabulary of their own: texts are split as sentencepiece itself splits them."""

from __future__ import annotations

import io
import json

import pytest
import sentencepiece

from triform.export.tokenization.seq2seq_pieces import Pieces, decoder, parse, tokenizer_of
from triform.runtime.encoder_decoder.source_text import UNLISTED

LINES = [
    "the sea and the cat",
    "a cat that sat on the mat",
    "the hat, the bat and the rat",
    "sea side seats set",
    "ab abc abd",
] * 4
TEXTS = [
    "", " ", "  ", "the", " the", "the ", "  the  cat  ", "the sea", "catsat", "cat  sat", "a", "ab", "zab", "<sep>",
    "abc<sep>abd", "<sep><sep>", " <sep> x", "ж", "жж", "the ж cat", "▁the", "the▁cat", "é", "ﬁ ½", "the\tcat\nsat",
    "ＡＢ ab", "\u3000the", "q, z.",
]  # fmt: skip


def trained(**options):
    """Sentencepiece's model, and its ids of a text."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=made, minloglevel=2, hard_vocab_limit=False,
        **{"vocab_size": 60, **options},
    )  # fmt: skip
    return parse(made.getvalue()), sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())


def pieces_of(proto, **others):
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    return Pieces(proto, **{"vocabulary": vocabulary, "whole": frozenset(), "unknown": "<unk>", **others})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model_type": "bpe"},
        {"add_dummy_prefix": False},
        {"model_type": "bpe", "add_dummy_prefix": False, "remove_extra_whitespaces": False},
        {"remove_extra_whitespaces": False},
        {"normalization_rule_name": "identity"},
        {"split_by_whitespace": False, "max_sentencepiece_length": 9},
        {"user_defined_symbols": ["<sep>", "ab"]},
        {"user_defined_symbols": ["<sep>", "ab", "t"], "add_dummy_prefix": False},
        {"byte_fallback": True, "vocab_size": 320},
        {"model_type": "bpe", "byte_fallback": True, "vocab_size": 320},
    ],
    ids=str,
)
def test_texts_are_split_as_sentencepiece_does(options):
    proto, processor = trained(**options)
    rebuilt = tokenizer_of(pieces_of(proto))
    for text in TEXTS:
        assert rebuilt.encode(text).ids == processor.encode(text), repr(text)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_ids_are_those_of_the_vocabulary(kind):
    """Numbers without a token, tokens that the model never gives, and pieces that the vocabulary lacks."""
    proto, processor = trained(model_type=kind)
    first, second, *known = [piece.piece for piece in proto.pieces if piece.type == 1]
    vocabulary = {"<unk>": 1, "</s>": 4, **{piece: 7 + index for index, piece in enumerate(reversed(known))}}
    vocabulary |= {"seldom": max(vocabulary.values()) + 3}
    size = vocabulary["seldom"] + 1
    rebuilt = tokenizer_of(pieces_of(proto, vocabulary=vocabulary))
    for text in TEXTS:
        expected = [vocabulary.get(piece) for piece in processor.encode(text, out_type=str)]
        found = rebuilt.encode(text).ids
        # What is behind the vocabulary, and what the model does not know, is unknown to the runtime.
        assert [None if index >= size or index == 1 else index for index in found] == expected, repr(text)
    assert rebuilt.id_to_token(vocabulary["seldom"]) == f"{UNLISTED}seldom"
    assert {rebuilt.token_to_id(first), rebuilt.token_to_id(second)} == {size, size + 1}
    assert rebuilt.get_vocab_size() == size + 2


def test_tokens_that_are_recognized_before_have_their_own_names():
    proto, _ = trained()
    vocabulary = {"<unk>": 0, "</s>": 1, "<lang>": 2, "▁cat": 3}
    rebuilt = tokenizer_of(pieces_of(proto, vocabulary=vocabulary, whole=frozenset({"</s>"})))
    assert [rebuilt.id_to_token(index) for index in range(4)] == ["<unk>", "</s>", f"{UNLISTED}<lang>", "▁cat"]


@pytest.mark.parametrize("extra", [True, False])
def test_a_code_at_the_beginning_is_a_token(extra):
    """By Marian's rule: ``>>…<<`` is taken from the beginning alone; one that is not known is one unknown token."""
    proto, processor = trained(remove_extra_whitespaces=extra)
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    code = len(vocabulary)
    vocabulary |= {">>fr<<": code, ">>zh_a.b<<": code + 1}
    rebuilt = tokenizer_of(pieces_of(proto, vocabulary=vocabulary, codes=True))
    for text in ("the cat", " the", "", "  "):
        plain = processor.encode(text)
        assert rebuilt.encode(f">>fr<<{text}").ids == [code, *plain]
        assert rebuilt.encode(f">>zh_a.b<<{text}").ids == [code + 1, *plain]
        assert rebuilt.encode(f">>zh_axb<<{text}").ids == [0, *plain]
        assert rebuilt.encode(text).ids == plain
    assert code not in rebuilt.encode("the >>fr<< cat").ids


def test_models_of_other_kinds():
    for kind in ("char", "word"):
        with pytest.raises(ValueError, match=r"^sentencepiece models of words or characters are not supported$"):
            tokenizer_of(pieces_of(trained(model_type=kind)[0]))


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["▁the", "▁cat"], "the cat"),
        (["▁the", "▁", "▁cat", "▁"], "the  cat"),
        (["▁", "▁a"], "a"),
        ([], ""),
        (["▁"], ""),
        ([f"{UNLISTED}x", "▁y"], "x y"),
        (["▁a", "<0xC3>", "<0xA9>", "b"], "aéb"),
        (["▁a", "<0xC3>", "b"], "a\ufffdb"),
    ],
)
def test_pieces_become_a_text(tokens, text):
    assert decoder(byte_fallback=True).decode(tokens) == text
    if not any("0x" in token for token in tokens):
        assert decoder(byte_fallback=False).decode(tokens) == text


def test_bytes_are_text_where_the_model_has_none():
    assert decoder(byte_fallback=False).decode(["▁a", "<0xC3>", "<0xA9>"]) == "a<0xC3><0xA9>"


def test_it_is_written_and_read_again():
    proto, processor = trained()
    rebuilt = tokenizer_of(pieces_of(proto))
    content = json.loads(rebuilt.to_str())
    assert [name for name, _ in content["model"]["vocab"]][3:] == [piece.piece for piece in proto.pieces][3:]
    assert rebuilt.decode(processor.encode("the  cat")) == processor.decode(processor.encode("the  cat"))
