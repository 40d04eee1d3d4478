"""Texts cut into words and joined by Moses' rules: ids and texts as transformers'."""

from __future__ import annotations

import dataclasses
import sys
from re import escape
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken

from tests.checkpoints.seq2seq_tokenizers import SENTENCES
from triform.export.tokenization.seq2seq_moses import moses_of, reading_words, target_vocabulary, writing_words
from triform.runtime.bundle.text_info import MosesInfo
from triform.runtime.encoder_decoder.source_text import SourceText
from triform.runtime.errors import UnsupportedError
from triform.runtime.extras import install_command
from triform.runtime.text.detokenizer import IncrementalDetokenizer

NO_LIMIT = 1 << 30
# What Moses' rules are about: quotation marks, clitics, hyphens, abbreviations, numbers, XML, unusual punctuation.
ORDINARY = [
    "The so-called \"co-op\" (est. 1,984.50) doesn't open at 9 a.m., Mr. Smith said: 'Never!'",
    "It cost $5 & 50% of <b>all</b> [x] | y... or so; e.g. at http://example.org/a_b?c=d#e.",
    "The Joneses' house isn't St. John's. No. 5 is; no. It's rock 'n' roll -- well-known, state-of-the-art.",
    "Der Zug nach Köln fährt um 9.30 Uhr, z. B. am 3. Mai; „Schön“, sagte er, ‚und teuer.‘",
    "Straßen-, U-Bahn- und Übungsplätze: 1\u00a0000\u00a0€ – »viel« — oder?",
    "Поезд в Москву — «Сапсан», т.е. скорый: 3,5 ч. Кто-то спросил: „Где?“",
    "（１２３）。 【a】、《b》；「c」：％？！． 〈d〉～━∶",
    "</s>The</s>the <pad> \u00a0? a<unk>b </w> @-@ x @-@ y &amp; &#124; \u0378\U000e0001",
]  # fmt: skip
MOSES = ("fsmt", "fsmt, small letters", "fsmt closing up")


@pytest.mark.parametrize("name", MOSES)
def test_words_are_cut_and_joined_as_the_original_does(families, name):
    original, folder, info = families(name)
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    for text in (*ORDINARY, *SENTENCES):
        ids = original(text)["input_ids"]
        assert reader.read([text]) == [ids], text
        # What the target's language makes of the words, without those that its vocabulary lacks.
        words = reader.target.encode(text).ids
        known = [index for index in words if index in original.decoder]
        for written in (ids, known, known[: len(known) // 2]):
            text_of = original.decode(written, skip_special_tokens=True)
            assert reader.target.decode(written) == text_of, text
            stream = IncrementalDetokenizer(reader.target)
            assert "".join([*(stream.push(token) for token in written), stream.flush()]) == text_of


def test_words_and_their_punctuation(families):
    """Moses' rules, by hand: marks stand alone and are escaped, hyphens become @-@, and joining undoes it."""
    _, folder, info = families("fsmt")
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    target = reader.target
    assert target.words('A co-op, "so"</s>x') == ["A", "co", "@-@", "op", ",", "&quot;", "so", "&quot;", "</s>", "x"]
    assert target.decode(target.encode("An open-air room („so“), and more: a < b.").ids) == (
        'An open-air room ("so"), and more: a < b.'
    )
    small = SourceText(folder, dataclasses.replace(info, moses=MosesInfo("en", "de", True)), NO_LIMIT, NO_LIMIT)
    assert small.read(["THE Sea"]) == reader.read(["the sea"]) != reader.read(["THE Sea"])


def test_nothing_is_sent_before_its_words_are_joined(families):
    _, folder, info = families("fsmt")
    target = SourceText(folder, info, NO_LIMIT, NO_LIMIT).target
    ids = target.encode("the sea, and more").ids
    stream = IncrementalDetokenizer(target)
    assert [stream.push(token) for token in ids] == [""] * len(ids)
    assert stream.flush() == target.decode(ids)


def test_a_piece_that_only_the_other_vocabulary_has_is_unknown(families):
    original, folder, info = families("fsmt")
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    assert "the</w>" not in original.encoder
    assert reader.read(["the"]) == [[original.unk_token_id, original.sep_token_id]]
    (the,) = (index for index, token in original.decoder.items() if token == "the</w>")
    assert reader.target.decode([the]) == original.decode([the]) == "the"


def test_words_need_their_package(families, monkeypatch):
    _, folder, info = families("fsmt")
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    message = f"^splitting this model's texts into words needs sacremoses: {escape(install_command('moses'))}$"
    with pytest.raises(UnsupportedError, match=message):
        SourceText(folder, info, NO_LIMIT, NO_LIMIT)


def small_tokenizer():
    """What is read of a tokenizer of transformers; merges are named in another order than they are ranked in."""
    encoder = {"<unk>": 1, "t": 2, "h": 3, "e</w>": 5}
    return SimpleNamespace(
        bpe_ranks={("h", "e</w>"): 1, ("t", "h"): 0, ("th", "e</w>"): 2, ("a", "b", "c"): 3},
        encoder=encoder,
        decoder={1: "<unk>", 2: "the</w>", 6: "t"},
        get_vocab=lambda: encoder,
        moses_pipeline=None,
        src_lang="en",
        tgt_lang="de",
        do_lower_case=1,
        unk_token="<unk>",
        all_special_tokens=["<unk>", "<pad>"],
        added_tokens_decoder={1: AddedToken("<unk>", special=True)},
        build_inputs_with_special_tokens=lambda first, second=(): [*first, *second],
        create_token_type_ids_from_sequences=lambda first, second=(): [0] * (len(first) + len(second)),
    )


def test_pieces_that_have_no_id_come_behind_both_vocabularies():
    """The highest id is the target's 6; ids without a token are the unknown one."""
    reading, writing = reading_words(small_tokenizer()), writing_words(small_tokenizer())
    assert {token: index for token, index in reading.get_vocab().items() if index > 6} == {
        "th": 7, "he</w>": 8, "the</w>": 9,
    }  # fmt: skip
    assert {token: index for token, index in writing.get_vocab().items() if index > 6} == {
        "h": 7, "th": 8, "e</w>": 9, "he</w>": 10,
    }  # fmt: skip
    # By rank "t h" comes first, then "th e".
    assert reading.encode("the").ids == [9]
    assert [reading.id_to_token(index) for index in (1, 2, 3, 5)] == ["<unk>", "t", "h", "e</w>"]
    assert writing.decode([2, 6, 6, 2]) == "the ttthe "
    assert writing.decode([2, 0, 4]) == "the <unk><unk>"
    assert target_vocabulary(small_tokenizer()) == {"<unk>": 1, "the</w>": 2, "t": 6}


def test_what_is_known_of_moses():
    assert moses_of(small_tokenizer(), {" .": "."}) == MosesInfo("en", "de", True, {" .": "."})
    assert moses_of(SimpleNamespace(src_lang="en", tgt_lang="de", do_lower_case=False), {}) is None
