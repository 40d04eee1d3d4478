"""Describes the languages of a translation tokenizer and the tasks of a model for the runtime.

The tokens that a language adds around a text are found by setting the language and tokenizing.
"""

from __future__ import annotations

import re
from typing import Any

from triform.runtime.bundle.text_info import LanguagesInfo, SourceLanguage, TargetLanguage, TaskPrefix

# Language codes among the special tokens of tokenizers that keep no list of them: de_DE, deu_Latn.
_CODE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")
_PLAIN = (bool, int, float, str)


def languages_of(tokenizer: Any) -> LanguagesInfo | None:
    """The languages of a tokenizer of transformers; None where it has none."""
    if _is_property(tokenizer, "src_lang"):
        return _both_sides(tokenizer)
    if getattr(tokenizer, "lang_code_to_id", None):
        return _spoken_about(tokenizer)
    return _asked_in_the_text(tokenizer)


def languages_listed(generation: Any) -> LanguagesInfo | None:
    """The languages that a generation config lists, with which a target begins (Seamless); None where it lists none.

    There is no default: which language is wanted is always said.
    """
    listed = getattr(generation, "text_decoder_lang_to_code_id", None)
    if not listed:
        return None
    return LanguagesInfo(targets={code: TargetLanguage(forced=[int(index)]) for code, index in listed.items()})


def task_prefixes(config: Any) -> dict[str, TaskPrefix]:
    """A config's ``task_specific_params`` (T5, BART) by task, without values that are lists or objects."""
    tasks = getattr(config, "task_specific_params", None) or {}
    return {
        name: TaskPrefix(
            parameters.get("prefix") or "",
            {key: value for key, value in parameters.items() if key != "prefix" and isinstance(value, _PLAIN)},
        )
        for name, parameters in tasks.items()
        if isinstance(parameters, dict)
    }


def _is_property(tokenizer: Any, name: str) -> bool:
    return isinstance(getattr(type(tokenizer), name, None), property)


def _both_sides(tokenizer: Any) -> LanguagesInfo | None:
    """A text is wrapped in its own language's tokens, and a target begins with its own (mBART, M2M-100, NLLB)."""
    default = tokenizer.src_lang
    sources = {}
    try:
        for code in _codes(tokenizer):
            tokenizer.src_lang = code
            sources[code] = _around(tokenizer)
    finally:
        tokenizer.src_lang = default
    if not sources:
        return None
    targets = {code: TargetLanguage(forced=_own(tokenizer, source)) for code, source in sources.items()}
    target = getattr(tokenizer, "tgt_lang", None)
    return LanguagesInfo(
        sources,
        targets,
        default if default in sources else None,
        target if target in targets else None,
    )


def _spoken_about(tokenizer: Any) -> LanguagesInfo:
    """A target begins with its language; the source is speech (Speech2Text)."""
    return LanguagesInfo(
        targets={code: TargetLanguage(forced=[index]) for code, index in tokenizer.lang_code_to_id.items()},
        default_target=getattr(tokenizer, "tgt_lang", None),
        plain=_around(tokenizer),
    )


def _asked_in_the_text(tokenizer: Any) -> LanguagesInfo | None:
    """A text begins with its target language, such as ``>>fra<<`` (Marian)."""
    codes = getattr(tokenizer, "supported_language_codes", None)
    if not codes:
        return None
    targets = {code[2:-2]: TargetLanguage(asked=[tokenizer.convert_tokens_to_ids(code)]) for code in codes}
    return LanguagesInfo(targets=targets, plain=_around(tokenizer))


def _codes(tokenizer: Any) -> list[str]:
    listed = getattr(tokenizer, "lang_code_to_id", None)
    if listed:
        return [code for code, index in listed.items() if index not in (None, tokenizer.unk_token_id)]
    return [token for token in tokenizer.all_special_tokens if _CODE.fullmatch(token)]


def _around(tokenizer: Any) -> SourceLanguage:
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next(at for at in range(len(whole)) if whole[at : at + len(alone)] == alone)
    return SourceLanguage(whole[:start], whole[start + len(alone) :])


def _own(tokenizer: Any, source: SourceLanguage) -> list[int]:
    """The language's own token, among those added around its texts."""
    return [token for token in (*source.prefix, *source.suffix) if token != tokenizer.eos_token_id]
