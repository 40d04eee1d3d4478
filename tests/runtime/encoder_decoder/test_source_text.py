"""Texts for an encoder, on a tokenizer of words: languages and their tokens, unknown pieces, composed letters."""

from __future__ import annotations

import unicodedata

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from triform.runtime.bundle.text_info import LanguagesInfo, SourceLanguage, SourceTextInfo, TargetLanguage
from triform.runtime.encoder_decoder.source_text import UNLISTED, SourceText, compose, find_language
from triform.runtime.errors import InputError

WORDS = ["<unk>", "a", "b", "c", "<de>", "<fr>", "<end>", ">>x", "ä", f"{UNLISTED}d", "e", "d"]
IDS = {word: index for index, word in enumerate(WORDS)}
TWO = LanguagesInfo(
    sources={"de_DE": SourceLanguage([4], [6]), "fr_FR": SourceLanguage([5], [6, 6])},
    targets={"de_DE": TargetLanguage([], [4]), "fr_FR": TargetLanguage([], [5])},
    default_source="de_DE",
)
ASKED = LanguagesInfo(
    targets={"de": TargetLanguage([4], []), "fr": TargetLanguage([5], [])}, plain=SourceLanguage([], [6])
)


@pytest.fixture
def source_text(tmp_path):
    def make(languages=None, max_length=9, **info):
        words = Tokenizer(models.WordLevel(IDS, "<unk>"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        words.save(str(tmp_path / "tokenizer.json"))
        strict = info.pop("strict", False)
        return SourceText(tmp_path, SourceTextInfo(languages=languages, **info), max_length, len(WORDS), strict=strict)

    return make


def test_a_model_without_languages(source_text):
    text = source_text()
    assert text.read(["a b", "c"]) == [[1, 2], [3]] and text.length("a b c") == 3
    assert text.forced() == [] and text.max_length == 9
    for given, said in (
        ("source_lang", "takes no source language"),
        ("target_lang", "has no choice of target languages"),
    ):
        with pytest.raises(InputError, match=rf"^this model {said}; leave 'de' out$"):
            text.read(["a"], **{given: "de"})


def test_tokens_of_the_source_language(source_text):
    text = source_text(TWO)
    assert text.read(["a b"]) == [[4, 1, 2, 6]]
    assert text.read(["a b"], source_lang="fr", target_lang="de") == [[5, 1, 2, 6, 6]]
    assert text.length("a b", source_lang="FR-fr") == 5
    # The next call has its own again.
    assert text.read(["a"]) == [[4, 1, 6]]
    assert text.forced("fr") == [5] and text.forced() == []
    with pytest.raises(InputError, match=r"^the model has no language 'it'; it has de_DE, fr_FR$"):
        text.read(["a"], source_lang="it")


def test_room_is_left_for_the_tokens_of_a_language(source_text):
    text = source_text(TWO, max_length=4)
    assert text.read(["a b c a", "a"]) == [[4, 1, 2, 6], [4, 1, 6]] and text.truncated == 1
    assert text.length("a b c a") == 6
    with pytest.raises(InputError, match=r"^text 3 is longer than the model's 4 tokens"):
        source_text(TWO, max_length=4, strict=True).read(["a", "a b c a"], first=2)


def test_a_source_language_that_must_be_named(source_text):
    text = source_text(LanguagesInfo(sources=TWO.sources))
    with pytest.raises(InputError, match=r"^this model needs a source language: de_DE, fr_FR$"):
        text.read(["a"])


def test_a_target_language_that_the_encoder_is_asked_for(source_text):
    text = source_text(ASKED)
    assert text.read(["a"], target_lang="fr") == [[5, 1, 6]]
    # A text may ask by itself.
    assert text.read([">>x a"]) == [[7, 1, 6]]
    with pytest.raises(InputError, match=r"^this model needs a target language: de, fr$"):
        text.read([">>x a", "a"])
    with_default = LanguagesInfo(targets=ASKED.targets, plain=ASKED.plain, default_target="de")
    assert source_text(with_default).read(["a"]) == [[4, 1, 6]]


def test_forced_tokens_are_copies(source_text):
    text = source_text(TWO)
    text.forced("fr").append(99)
    assert text.forced("fr") == [5]


def test_pieces_that_are_not_in_the_vocabulary(source_text):
    """Those from `vocabulary` on are unknown; of unknown ones that are listed apart the id is theirs."""
    text = source_text(unknown=0, vocabulary=10)
    assert text.read(["a e z d"]) == [[1, 0, 0, 9]]
    assert source_text(unknown=0, vocabulary=11).read(["a e z d"]) == [[1, 10, 0, 9]]
    assert source_text(unknown=0).read(["e d"]) == [[10, 11]]


def test_letters_of_the_target_language_in_no_piece(tmp_path):
    """Unigram models give the letters of an unknown token: those that are listed apart have an id of their own."""
    pieces = ["<unk>", "a", f"{UNLISTED}d"]
    words = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    words.save(str(tmp_path / "tokenizer.json"))
    text = SourceText(tmp_path, SourceTextInfo(unknown=0), 9, len(pieces))
    assert text.read(["ada", "az"]) == [[1, 2, 1], [1, 0]]
    # Too long a text is cut, as long as nobody asked to refuse it.
    assert text.read(["a" * 10]) == [[1] * 9]


def test_letters_are_composed_where_the_model_does(source_text):
    apart = unicodedata.normalize("NFD", "ä")
    assert source_text(composed=True).read([apart]) == [[8]] and source_text().read([apart]) == [[0]]
    assert source_text(composed=True).length(apart) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""), ("abc", "abc"), ("a\u0308", "ä"), ("xa\u0308y", "xäy"), ("\u0308", "\u0308"),
        # Four characters of one letter, and what five would not give.
        ("\u03b1\u0313\u0301\u0345", "\u1f84"), ("\u03b1\u0313\u0301\u0345\u0308", "\u1f84\u0308"),
        # Marks that NFKC would sort stay in their order, and what does not become one character stays as it is.
        ("q\u0307\u0323", "q\u0307\u0323"), ("a\u0323\u0302", "\u1ead"), ("\ufb01x", "\ufb01x"),
        ("e\u0301\u0301", "é\u0301"),
    ],
)  # fmt: skip
def test_what_sentencepiece_composes(text, expected):
    assert compose(text) == expected


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("de_DE", "de_DE"), ("DE-de", "de_DE"), ("de", "de_DE"), ("<de_DE>", "de_DE"), (" __pt__ ", "pt"),
        ("zh-Hant", "zh_Hant"), ("zh_HANS", "zh_Hans"),
    ],
)  # fmt: skip
def test_names_of_languages(name, code):
    assert find_language(name, dict.fromkeys(["de_DE", "zh_Hans", "zh_Hant", "pt"])) == code


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zh", "the language 'zh' may be zh_Hans or zh_Hant; name one of them"),
        ("xx", "the model has no language 'xx'; it has de_DE, pt, zh_Hans, zh_Hant"),
        ("d", "the model has no language 'd'; it has de_DE, pt, zh_Hans, zh_Hant"),
        ("DE_AT", "the model has no language 'DE_AT'; it has de_DE, pt, zh_Hans, zh_Hant"),
    ],
)
def test_names_that_are_no_language(name, said):
    with pytest.raises(InputError) as caught:
        find_language(name, dict.fromkeys(["de_DE", "zh_Hant", "zh_Hans", "pt"]))
    assert str(caught.value) == said
