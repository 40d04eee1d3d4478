"""The tokenizer of models that read characters, against transformers' own and against the library it stands in for."""

from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AddedToken, CanineTokenizer

from triform.runtime.bundle.text_info import CodePointsInfo
from triform.runtime.errors import InputError
from triform.runtime.text.code_points import CodePointTokenizer
from triform.runtime.text.rows import RowReader

CLS, SEP, MASK = 0xE000, 0xE001, 0xE003
INFO = CodePointsInfo(CLS, SEP, [0, CLS, SEP, MASK], [MASK], 0)
TEXTS = [
    "",
    "a",
    " two  words ",
    "naïve 日本 👩\u200d👧 e\u0301\n\tend\u3000\x1c.",
    "\U0010ffff\ue004\x00\ufeff",
    "ab c" * 9,
]
PAIRS = [("who?", "the other one, far away"), ("", "b"), ("a" * 30, "b" * 7), ("a" * 9, "b" * 10), ("a" * 10, "b" * 9)]


def built(**changes):
    return CodePointTokenizer(CodePointsInfo(**{**INFO.__dict__, **changes}))


@pytest.fixture(scope="module")
def original():
    """As its authors have it: transformers 5 by itself forgets that the mask swallows spaces."""
    mask = AddedToken(chr(MASK), lstrip=True, special=True)
    return CanineTokenizer(added_tokens_decoder={MASK: mask})


@pytest.fixture(scope="module")
def library():
    """A tokenizer of the library that numbers the characters of the texts used here."""
    characters = sorted({character for text in [*TEXTS, *sum(PAIRS, ())] for character in text})
    vocabulary = {character: number for number, character in enumerate(characters)}
    tokenizer = Tokenizer(models.WordLevel({**vocabulary, "<cls>": CLS, "<sep>": SEP}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", pair="<cls> $A <sep> $B <sep>", special_tokens=[("<cls>", CLS), ("<sep>", SEP)]
    )
    return tokenizer


def assert_same(found, expected, texts):
    """All that a `Row` is made of; ids by the characters they stand for."""
    assert found.sequence_ids == expected.sequence_ids
    assert found.offsets == expected.offsets
    characters = [
        one if sequence is None else ord(texts[sequence][start])
        for one, sequence, (start, _) in zip(expected.ids, expected.sequence_ids, expected.offsets, strict=True)
    ]
    assert found.ids == characters
    assert len(found.type_ids) == len(found.word_ids) == len(found.ids)
    assert len(found.overflowing) == len(expected.overflowing)
    for one, other in zip(found.overflowing, expected.overflowing, strict=True):
        assert_same(one, other, texts)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(original, text):
    assert built().encode(text).ids == original(text)["input_ids"]
    assert built().encode(text, add_special_tokens=False).ids == [ord(one) for one in text]


@pytest.mark.parametrize(
    "text", ["one \ue003 two\t \u3000\ue003\ue003 three", " \ue003", "x \ue000 y \ue001", "  \ue003  "]
)
def test_a_mask_swallows_the_spaces_before_it(original, text):
    found = built().encode(text)
    assert found.ids == original(text)["input_ids"]
    assert [text[start:end] for start, end in found.offsets[1:-1]] == [chr(one) for one in found.ids[1:-1]]
    assert built(strip_before=[]).encode(text).ids == [CLS, *map(ord, text), SEP]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("length", [4, 15, 16, 17, 200])
def test_of_two_texts_the_longer_is_cut(original, pair, length):
    tokenizer = built()
    tokenizer.enable_truncation(length)
    found = tokenizer.encode(*pair)
    expected = original(*pair, truncation=True, max_length=length)
    assert (found.ids, found.type_ids) == (expected["input_ids"], expected["token_type_ids"])
    assert bool(found.overflowing) == (len(pair[0]) + len(pair[1]) + 3 > length)


def test_types_of_the_second_text():
    original = CanineTokenizer()
    original.token_type_ids_pattern = "bert_style"
    expected = original("ab", "cde")
    found = built(second_type=1).encode("ab", "cde")
    assert (found.ids, found.type_ids) == (expected["input_ids"], expected["token_type_ids"])
    assert 1 in found.type_ids


@pytest.mark.parametrize(("length", "stride"), [(2, 0), (3, 0), (10, 0), (10, 3), (10, 7), (38, 5), (100, 5)])
def test_windows_are_those_of_the_library(library, length, stride):
    tokenizer = built()
    for one in (tokenizer, library):
        one.enable_truncation(length, stride=stride, strategy="only_first")
    for text in TEXTS if length > 2 else [""]:
        assert_same(tokenizer.encode(text), library.encode(text), (text,))
    library.no_truncation()


@pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[1], PAIRS[3]])
@pytest.mark.parametrize(("length", "stride"), [(14, 0), (15, 1), (20, 3), (100, 5)])
def test_windows_of_a_second_text_are_those_of_the_library(library, pair, length, stride):
    tokenizer = built()
    for one in (tokenizer, library):
        one.enable_truncation(length, stride=stride, strategy="only_second")
    assert_same(tokenizer.encode(*pair), library.encode(*pair), pair)
    library.no_truncation()


@pytest.mark.parametrize("pair", [(two, one) for one, two in (PAIRS[0], PAIRS[1], PAIRS[3])])
@pytest.mark.parametrize(("length", "stride"), [(14, 0), (15, 1), (20, 3), (100, 5)])
def test_windows_of_a_first_text_are_those_of_the_library(library, pair, length, stride):
    tokenizer = built()
    for one in (tokenizer, library):
        one.enable_truncation(length, stride=stride, strategy="only_first")
    assert_same(tokenizer.encode(*pair), library.encode(*pair), pair)
    library.no_truncation()


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("length", [4, 5, 6, 7, 8, 9])
def test_what_just_fits_is_whole_and_windows_share_nothing_unasked(library, special, length):
    tokenizer, text = built(), "abc de"
    for one in (tokenizer, library):
        one.enable_truncation(length)
    found = tokenizer.encode(text, add_special_tokens=special)
    # As many as the text has, without and with the two around it.
    assert bool(found.overflowing) == (length < (8 if special else 6))
    assert [chr(one) for part in (found, *found.overflowing) for one in part.ids if one < CLS] == list(text)
    expected = library.encode(text, add_special_tokens=special)
    assert [part.offsets for part in (found, *found.overflowing)] == [
        part.offsets for part in (expected, *expected.overflowing)
    ]
    library.no_truncation()


def test_both_texts_go_on_after_what_is_kept_of_them():
    tokenizer = built()
    tokenizer.enable_truncation(15)
    found = tokenizer.encode("a" * 10, "b" * 9)
    # Three special tokens leave room for twelve, six of each.
    parts = [tuple(map(chr, part.ids)) for part in (found, *found.overflowing)]
    assert ["".join(one for one in part if one < "z") for part in parts] == ["a" * 6 + "b" * 6, "a" * 4 + "b" * 3]


def test_a_batch_has_the_same_special_tokens_as_its_texts():
    tokenizer = built()
    assert [one.ids for one in tokenizer.encode_batch(["ab", ("a", "b")])] == [
        tokenizer.encode("ab").ids,
        tokenizer.encode("a", "b").ids,
    ]
    assert tokenizer.encode_batch(["ab"])[0].ids == [CLS, 97, 98, SEP]
    assert tokenizer.encode_batch(["ab"], add_special_tokens=False)[0].ids == [97, 98]


def test_words_are_what_spaces_part():
    found = built().encode("ab  c", "d e")
    assert found.word_ids == [None, 0, 0, 1, 1, 2, None, 0, 1, 2, None]


def test_characters_and_back():
    tokenizer = built()
    assert tokenizer.token_to_id("\ue000") == CLS
    assert tokenizer.token_to_id("") is tokenizer.token_to_id("ab") is None
    assert [tokenizer.id_to_token(one) for one in (0, 97, 0x1F600, 10, CLS, 0x10FFFF, 0x110000, -1)] == [
        "U+0000", "a", "\U0001f600", "U+000A", "U+E000", "U+10FFFF", None, None,
    ]  # fmt: skip
    ids = tokenizer.encode("a é\U0001f600").ids
    assert tokenizer.decode(ids) == "a é\U0001f600"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "\ue000a é\U0001f600\ue001"


def test_reader_of_characters():
    reader = RowReader(built(), 12, 0x110000, min_length=4)
    row = reader.read(["one \U0001f600 two and more"])[0]
    assert (len(row.ids), row.truncated, reader.truncated) == (12, True, 1)
    assert reader.room("four") == 12 - 3 - 4
    assert reader.room() == 10
    windows = reader.read_windows(("four", "a long text"), stride=2)
    assert [[chr(one) for one in window.ids[6:-1]] for window in windows] == [
        list("a lon"), list("ong t"), list(" text")
    ]  # fmt: skip
    with pytest.raises(InputError, match="text 1 is not valid Unicode at character 2"):
        reader.read(["a\ud800b"])
    with pytest.raises(InputError, match=r"^text 4 has only 3 tokens, but the model needs at least 4: 'x'$"):
        reader.read(["ab", "x"], first=3)
    with pytest.raises(InputError, match=r"^text 7 has only 3 tokens"):
        reader.read_windows("0123456789x", stride=0, number=7)
