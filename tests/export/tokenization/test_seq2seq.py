"""Tokenizers of models with an encoder and a decoder: ids and texts as transformers', and what languages change."""

from __future__ import annotations

import dataclasses
import random
import unicodedata

import pytest
import transformers
from tokenizers import Tokenizer

from tests.checkpoints.seq2seq_tokenizers import BUILDERS
from tests.export.tokenization.test_conversion import random_texts
from triform.export.tokenization import seq2seq as seq2seq_tokenizers
from triform.export.tokenization.conversion import difficult_texts
from triform.export.tokenization.seq2seq import save_tokenizers
from triform.export.tokenization.seq2seq_languages import task_prefixes
from triform.runtime.bundle.text_info import SourceTextInfo
from triform.runtime.checked_json import build
from triform.runtime.encoder_decoder.source_text import SourceText, compose, find_language
from triform.runtime.errors import ExportError, InputError
from triform.runtime.text.detokenizer import IncrementalDetokenizer

NO_LIMIT = 1 << 30
TEXTS = [
    *(text for text in difficult_texts() if len(text) < 10_000),
    *random_texts(40),
    "日本 日 日本日 ٤ x 3¾\u0301",
    "the e thee",
    ">>fra<< hello",
    ">>fra<<hello",
    ">>zho_Hant<<  hello",
    ">>xyz<< hello",
    ">>fra<<",
    ">>fra<<  ",
    "hello >>fra<< hello",
    "a</s> <pad>b <unk>c",
    # Letters and marks apart, and marks in an order that is not Unicode's.
    *(
        unicodedata.normalize("NFD", text)
        for text in ("Tiếng Việt ế", "한국어 각", "がぎ パ", "й ᾂ ẛ̣", "Ç\u0303 ño", "क़ ড়")
    ),
    "e\u0301\u0323 a\u0323\u0302 \u0628\u0651\u064e \u212b ｶﾞｷﾞ ﾊﾟ",
]
SPACED = "It ' s 'm , do n't we 've ? a . b ! you 're é日本 🙂 's  . end"


@pytest.mark.parametrize("name", BUILDERS)
def test_ids_and_texts(families, name):
    original, folder, info = families(name)
    # As the runtime would have it.
    assert build(SourceTextInfo, dataclasses.asdict(info)) == info
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    for text in TEXTS:
        expected = original(text, verbose=False)["input_ids"]
        if name != "marian of many languages" or text.startswith(">>"):
            assert reader.read([text]) == [expected], repr(text)
        if not info.target_file:
            assert reader.target.decode(expected) == original.decode(expected, skip_special_tokens=True)


def ids_that_decode(original, info, generator):
    apart = set(original.added_tokens_decoder)
    known = range(len(original))
    if info.moses:
        # Those that have no token are the unknown one.
        known = range(max(original.src_vocab_size, original.tgt_vocab_size))
    elif info.target_file:
        known = original.target_encoder.values()
        apart |= {original.target_encoder.get(token) for token in original.all_special_tokens}
    known = sorted(set(known) - apart)
    yield from ([generator.choice(known) for _ in range(generator.randint(1, 30))] for _ in range(150))
    for start in range(30):
        text = SPACED[start:]
        ids = original(text_target=text)["input_ids"] if info.target_file else original(text)["input_ids"]
        yield ids if start < 3 else ids[: start // 2]


@pytest.mark.parametrize("name", BUILDERS)
def test_streamed_pieces_join_to_what_transformers_decodes(families, name):
    original, folder, info = families(name)
    target = SourceText(folder, info, NO_LIMIT, NO_LIMIT).target
    for ids in ids_that_decode(original, info, random.Random(1)):
        stream = IncrementalDetokenizer(target)
        streamed = "".join([*(stream.push(token) for token in ids), stream.flush()])
        assert streamed == original.decode(ids, skip_special_tokens=True), ids


def test_what_closing_up_changes(families):
    """By transformers' own rule: spaces before punctuation and clitics go, except from BPE of its own backend."""
    for name, changes in (("t5 closing up", True), ("marian closing up", True), ("bart told to close up", False)):
        original, folder, info = families(name)
        ids = original("we 've it .")["input_ids"]
        text = SourceText(folder, info, NO_LIMIT, NO_LIMIT).target.decode(ids)
        assert text == ("we've it." if changes else "we 've it .")


def test_letters_and_marks_become_one(families):
    """As sentencepiece has it: the original gives both the same ids."""
    original, folder, info = families("marian")
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    whole = "là nơi é"
    parts = unicodedata.normalize("NFD", whole)
    assert len(parts) > len(whole)
    assert reader.read([parts]) == reader.read([whole]) == [original(parts)["input_ids"]]
    assert compose("e\u0302\u0301 \u1112\u1161\u11ab e\u0301\u0323") == "ế 한 é\u0323"


def test_times_are_no_text(families):
    original, folder, info = families("whisper")
    target = SourceText(folder, info, NO_LIMIT, NO_LIMIT).target
    start, times = original.convert_tokens_to_ids("<|startoftranscript|>"), original.convert_tokens_to_ids("<|0.00|>")
    words = original(" Hello.", add_special_tokens=False)["input_ids"]
    ids = [start, times, *words, times + 20, times + 20, *words, times + 49, original.eos_token_id]
    assert target.decode(ids) == original.decode(ids, skip_special_tokens=True) == " Hello. Hello."


def test_bytes(families):
    _, folder, info = families("byt5")
    target = SourceText(folder, info, NO_LIMIT, NO_LIMIT).target
    a, lone, *nothing = (byte + 3 for byte in b"a\xc3\xef\xbf\xbd")
    assert target.decode([a, lone, a]) == "aa"
    assert target.decode([a, *nothing, a]) == "a\ufffda"


LANGUAGES = {
    "mbart": ("en_XX", "de_DE", "zh_CN"),
    "mbart50": ("en_XX", "de_DE", "sl_SI"),
    "m2m": ("en", "de", "zu"),
    "nllb": ("eng_Latn", "zho_Hant", "zul_Latn"),
    "nllb, older": ("eng_Latn", "deu_Latn"),
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_languages_of_both_sides(families, name):
    original, folder, info = families(name)
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    codes = LANGUAGES[name]
    assert reader.languages.default_source == codes[0]
    try:
        for source, target in zip(codes, codes[::-1], strict=True):
            inputs = original._build_translation_inputs("Hello, world 日", src_lang=source, tgt_lang=target, **(
                {} if name == "m2m" else {"return_tensors": None}
            ))  # fmt: skip
            assert reader.read(["Hello, world 日"], source_lang=source) == [inputs["input_ids"]]
            assert reader.forced(target) == [inputs["forced_bos_token_id"]]
            assert inputs["forced_bos_token_id"] != original.unk_token_id
    finally:
        original.src_lang = codes[0]
    assert reader.forced() == []


def test_a_language_asked_for_in_the_text(families):
    original, folder, info = families("marian of many languages")
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    for text in ("Hello", " the 日", "", "x >>fra<< y"):
        for code in ("fra", "zho_Hant"):
            assert reader.read([text], target_lang=code) == [original(f">>{code}<< {text}")["input_ids"]]
    assert reader.forced("fra") == []
    assert reader.read([">>fra<< Hello"]) == [original(">>fra<< Hello")["input_ids"]]
    with pytest.raises(InputError, match=r"^this model needs a target language: fra, zho_Hans, zho_Hant$"):
        reader.read(["Hello"])
    with pytest.raises(InputError, match=r"^this model takes no source language; leave 'en' out$"):
        reader.read(["Hello"], source_lang="en", target_lang="fra")


def test_a_language_that_is_heard(families):
    original, folder, info = families("speech to texts")
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    assert reader.forced("de") == [original.lang_code_to_id["de"]]
    assert reader.forced() == [original.lang_code_to_id["fr"]]


def test_names_of_languages(families):
    _, folder, info = families("nllb")
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    known = reader.languages.targets
    for name in ("deu_Latn", "DEU_latn", "deu-Latn", "deu"):
        assert find_language(name, known) == "deu_Latn"
    assert find_language(">>fra<<", {"fra": 0, "fra_old": 0}) == "fra"
    with pytest.raises(InputError, match=r"^the language 'zho' may be zho_Hans or zho_Hant; name one of them$"):
        reader.forced("zho")
    with pytest.raises(InputError, match=r"^the model has no language 'xx'; it has ace_Arab, ace_Latn, .*, zul_Latn$"):
        reader.read(["Hello"], source_lang="xx")
    assert set(known) == {token for token in families("nllb")[0].all_special_tokens if token[3:4] == "_"}


def test_no_languages(families):
    _, folder, info = families("t5")
    reader = SourceText(folder, info, NO_LIMIT, NO_LIMIT)
    assert info.languages is None
    assert reader.forced() == []
    with pytest.raises(InputError, match=r"^this model has no choice of target languages; leave 'de' out$"):
        reader.read(["Hello"], target_lang="de")


@pytest.mark.parametrize("name", ["t5", "byt5", "mbart", "m2m", "nllb", "marian of many languages", "fsmt"])
def test_texts_that_are_too_long(families, name):
    original, folder, info = families(name)
    reader = SourceText(folder, info, 16, NO_LIMIT)
    target, code = ("fra", ">>fra<< ") if name.startswith("marian") else (None, "")
    text = "There is an old argument about mathematics."
    expected = original(code + text, truncation=True, max_length=16)["input_ids"]
    assert reader.read([text, "a"], target_lang=target)[0] == expected
    assert len(expected) == 16
    assert reader.truncated == 1
    strict = SourceText(folder, info, 16, NO_LIMIT, strict=True)
    with pytest.raises(InputError, match=r"^text 5 is longer than the model's 16 tokens: 'There"):
        strict.read([text], target_lang=target, first=5)


def test_tasks():
    config = transformers.T5Config(
        task_specific_params={
            "summarization": {"prefix": "summarize: ", "num_beams": 4, "early_stopping": True, "length_penalty": 2.0},
            "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 300},
            "plain": {"min_length": 3},
        }
    )
    tasks = task_prefixes(config)
    assert tasks["summarization"].prefix == "summarize: "
    assert tasks["summarization"].generation == {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0}
    assert tasks["translation_en_to_de"].generation == {"max_length": 300}
    assert (tasks["plain"].prefix, tasks["plain"].generation) == ("", {"min_length": 3})
    assert task_prefixes(transformers.BartConfig()) == {}


def test_what_is_written_is_compared_with_the_original(trained, tmp_path, monkeypatch):
    original = BUILDERS["marian"](trained)
    write = seq2seq_tokenizers.write

    def worse(backend, path):
        backend.normalizer = None
        return write(backend, path)

    monkeypatch.setattr(seq2seq_tokenizers, "write", worse)
    with pytest.raises(ExportError, match=r"^the tokenizer of x, a MarianTokenizer, .* it reads '.*' otherwise$"):
        save_tokenizers(original, tmp_path, "x")


def test_a_file_of_its_own_for_what_is_decoded(families):
    original, folder, info = families("marian of two vocabularies")
    assert info.target_file == "target_tokenizer.json"
    ids = original(text_target="The museum is open.")["input_ids"]
    assert Tokenizer.from_file(str(folder / "target_tokenizer.json")).decode(ids) == "The museum is open."
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).decode(ids) != "The museum is open."
