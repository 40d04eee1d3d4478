"""Languages of tokenizers: of both sides, of speech, asked for in the text, or listed; on stand-ins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.export.tokenization.seq2seq_languages import languages_listed, languages_of, task_prefixes
from triform.runtime.bundle.text_info import LanguagesInfo, SourceLanguage, TargetLanguage, TaskPrefix

IDS = {"de_DE": 10, "fr_XX": 11, "deu_Latn": 12, "</s>": 2, "<unk>": 3, ">>fra<<": 20, ">>deu<<": 21}


class Both:
    """Puts a language before a text and the end behind it, as NLLB; MBart has two tokens behind."""

    eos_token_id, unk_token_id = 2, 3
    all_special_tokens = ("</s>", "<unk>", "de_DE", "deu_Latn", "fr_XX", "x_DE", "de_D", "DE_de")

    def __init__(self, default, codes=None, target=None, behind=False):
        self._src_lang, self._behind = default, behind
        if codes is not None:
            self.lang_code_to_id = codes
        if target is not None:
            self.tgt_lang = target

    @property
    def src_lang(self):
        return self._src_lang

    @src_lang.setter
    def src_lang(self, code):
        self._src_lang = code

    def __call__(self, text, add_special_tokens=True):
        own, alone = IDS.get(self._src_lang, 3), [5, 6]
        around = ([], [2, own]) if self._behind else ([own], [2])
        return {"input_ids": [*around[0], *alone, *around[1]] if add_special_tokens else alone}


def both(*codes, behind=False):
    return {code: SourceLanguage([], [2, IDS[code]]) if behind else SourceLanguage([IDS[code]], [2]) for code in codes}


@pytest.mark.parametrize("behind", [False, True])
def test_languages_of_both_sides(behind):
    tokenizer = Both("de_DE", {"de_DE": 10, "fr_XX": 11, "nope": 3, "none": None}, "fr_XX", behind)
    targets = {"de_DE": TargetLanguage(forced=[10]), "fr_XX": TargetLanguage(forced=[11])}
    sources = both("de_DE", "fr_XX", behind=behind)
    assert languages_of(tokenizer) == LanguagesInfo(sources, targets, "de_DE", "fr_XX")
    # The tokenizer is left as it was.
    assert tokenizer.src_lang == "de_DE"


def test_languages_that_only_special_tokens_tell():
    """Codes of two or three small letters, and two to four of any size behind a line."""
    pattern = {**both("de_DE", "deu_Latn", "fr_XX")}
    own = Both("eng")
    own.all_special_tokens = ("</s>", "de_DE", "deu_Latn", "fr_XX", "x_DE_y", "de_D", "DE_de", "de_DE_x")
    found = languages_of(own)
    assert (found.sources, found.default_source, found.default_target) == (pattern, None, None)
    alone = Both("eng", {})
    alone.all_special_tokens = ("</s>",)
    assert languages_of(alone) is None


class Plain:
    """Puts the end behind a text, and no language around it."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [5, 2] if add_special_tokens else [5]}

    def convert_tokens_to_ids(self, code):
        return IDS[code]


def test_languages_of_what_is_spoken():
    speech = Plain()
    assert languages_of(speech) is None
    speech.lang_code_to_id = {"de": 10, "fr": 11}
    targets = {"de": TargetLanguage(forced=[10]), "fr": TargetLanguage(forced=[11])}
    assert languages_of(speech) == LanguagesInfo(targets=targets, plain=SourceLanguage([], [2]))
    speech.tgt_lang = "fr"
    assert languages_of(speech).default_target == "fr"


def test_languages_that_a_text_asks_for():
    marian = Plain()
    marian.supported_language_codes = [">>fra<<", ">>deu<<"]
    targets = {"fra": TargetLanguage(asked=[20]), "deu": TargetLanguage(asked=[21])}
    assert languages_of(marian) == LanguagesInfo(targets=targets, plain=SourceLanguage([], [2]))
    marian.supported_language_codes = []
    assert languages_of(marian) is None


def test_languages_that_a_config_lists():
    listed = SimpleNamespace(text_decoder_lang_to_code_id={"deu": "10", "fra": 11})
    targets = {"deu": TargetLanguage(forced=[10]), "fra": TargetLanguage(forced=[11])}
    assert languages_listed(listed) == LanguagesInfo(targets=targets)
    for nothing in (SimpleNamespace(text_decoder_lang_to_code_id={}), SimpleNamespace()):
        assert languages_listed(nothing) is None


def test_tasks_of_a_config():
    tasks = {
        "summarization": {"prefix": "summarize: ", "num_beams": 4, "early_stopping": True, "bad": [1], "worse": {}},
        "plain": {"prefix": None, "length_penalty": 2.0, "name": "x"}, "wrong": 3, "empty": {},
    }  # fmt: skip
    assert task_prefixes(SimpleNamespace(task_specific_params=tasks)) == {
        "summarization": TaskPrefix("summarize: ", {"num_beams": 4, "early_stopping": True}),
        "plain": TaskPrefix("", {"length_penalty": 2.0, "name": "x"}), "empty": TaskPrefix("", {}),
    }  # fmt: skip
    assert task_prefixes(SimpleNamespace(task_specific_params=None)) == task_prefixes(SimpleNamespace()) == {}
