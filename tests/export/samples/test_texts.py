"""Windows of the sample texts begin as the model's tokenizer begins a text."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.samples import texts


@pytest.mark.parametrize(("template", "before"), [("<s> $A", [1]), ("<s> <|user|> $A <|end|>", [1, 3]), ("$A", [])])
def test_each_window_has_what_comes_before_a_text(template, before):
    inner = byte_level_tokenizer()
    names = {name: inner.token_to_id(name) for name in ("<s>", "<|user|>", "<|end|>")}
    plain = inner.encode(texts.read_text("evaluation"), add_special_tokens=False).ids
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(names.items()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=inner.get_vocab_size()))
    found = texts.text_ids(tokenizer, texts.read_text("evaluation"), 100, SimpleNamespace(config=config), window=40)
    share = 40 - len(before)
    assert found == [*before, *plain[:share], *before, *plain[share : 2 * share], *before, *plain[2 * share :]][:100]


def words_tokenizer():
    """A token for each word, by its length; paragraphs end in a token of their own."""

    def encode(text, add_special_tokens=True):
        ids = [100 + len(word) for word in text.split()]
        return {"input_ids": ids + [7] * text.endswith("\n\n")}

    return encode


MODEL = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=1000)))


def test_paragraphs_give_as_many_tokens_as_far_as_they_have_them():
    text = "a b c\n\n" + " ".join(["word"] * 500) + "\n\n" + " ".join(["longer"] * 300)
    ids = texts.spread_ids(words_tokenizer(), text, 144, MODEL, window=144)
    # Four of the first with its end; of 144, 140 are left for two.
    assert ids == [101, 101, 101, 7, *[104] * 70, *[106] * 70]


def test_paragraphs_of_a_long_text_are_from_all_over_it():
    text = "\n\n".join(f"{'x' * (index + 1)} " * 60 for index in range(100))
    ids = texts.spread_ids(words_tokenizer(), text, 480, MODEL, window=480)
    # 480 tokens are ten times the fewest of a paragraph: every tenth paragraph.
    assert ids == [101 + 10 * index for index in range(10) for _ in range(48)]


def test_passages_of_a_long_text_are_from_all_over_it():
    words = [f"w{index}" for index in range(1000)]
    passages = texts.spread_passages(" ".join(words), 50)
    assert [passage.split()[0] for passage in passages] == [f"w{20 * index}" for index in range(50)]


def test_what_is_calibrated_on_is_in_many_scripts():
    text = texts.calibration_mixture()
    scripts = {unicodedata.name(letter).split()[0] for letter in text if letter.isalpha()}
    assert scripts >= {
        "LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL", "THAI", "CJK", "HIRAGANA",
        "HANGUL",
    }  # fmt: skip
    assert all(part in text for part in texts.read_text("forms").strip().split("\n\n"))


def test_nothing_is_compared_on_what_is_calibrated_on():
    evaluation = texts.read_text("evaluation").split()
    known = set(zip(*(texts.calibration_mixture().split()[start:] for start in range(6)), strict=False))
    assert not known & set(zip(*(evaluation[start:] for start in range(6)), strict=False))
