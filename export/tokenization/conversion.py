"""Rebuilds tokenizers that transformers only has in Python as a tokenizer.json, and compares the two.

A tokenizer is recognized by what it does, not by its class: each way of rebuilding it is tried, and one is used only
if it gives the original's ids on difficult texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS, SpmConverter

from triform.runtime.errors import ExportError
from triform.runtime.text.code_points import CodePointTokenizer

_LONG = 100_000
# How many added tokens are tried in a text of their own.
_ALONE = 100
# Python's whitespace, which is more than Unicode's.
_SPACES = r"[\s\x1c-\x1f\x85]+"
_PIECES = (
    "Hello, world! It's 3.14 o'clock…",
    "naïve café, cafe\u0301, Ångström, A\u030angstro\u0308m, ﬁ ½ Ⅷ ①",
    "日本語と中文，한국어 테스트。ｶﾀｶﾅ ＡＢＣ",
    "שלום עולם مرحبا بالعالم \u202bab\u202c \u200fx\u200e",
    "👩‍👩‍👧‍👦 👍🏽 🇫🇷 ☺️ ☺︎ 𝔘𝔫𝔦 𠜎",
    "क्षत्रिय ไทยไม่มีวรรค မြန်မာ z\u0351\u036b\u0343\u032a",
    "zero\u200bwidth\u200cand\u200djoiners\u2060\ufeff",
    "control\x01\x02\x07\x08\x1b[0m\x7f\x85 and\x1c\x1d\x1e\x1fseparators",
    "tab\there\r\nline\nfeed\x0b\x0cend\u2028and\u2029more",
    "  two  spaces   and\u00a0no-break\u2003em\u3000ideographic ",
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQXBZJUO.-",
    "mkTayIAK QRqisf 12AL",
    "İstanbul ŞİŞLİ ǅ ß ẞ ς Σ",
    "https://example.org/a?b=c&d=e#f user_name@example.com C++ #1 $5 50% <b>&amp;</b> [x] {y}",
    "\ufffd \ue000 \ufdd0 \U0010ffff",
    "Pneumonoultramicroscopicsilicovolcanoconiosis" * 4,
)


@cache
def difficult_texts() -> tuple[str, ...]:
    """Texts on which tokenizers differ: scripts, emoji, combining and control characters, spaces, empty, 100 kB."""
    together = "\n".join(_PIECES)
    alone = ("", " ", "   ", "\n", "\r\n", "\t \n", "\u3000", "\u200d", "\x00", "a", "é", ".", "▁", "Ġ", "\U0001f600")
    return (*alone, *_PIECES, *(f" {piece}\n" for piece in _PIECES), together, (together * 200)[:_LONG])


def write(backend: Tokenizer, path: Path) -> Tokenizer:
    """Write a tokenizer for the runtime.

    Returns:
        the tokenizer that the runtime will load.
    """
    content = json.loads(backend.to_str())
    # The runtime pads and truncates; a length in the file would truncate prompts silently.
    content["padding"] = content["truncation"] = None
    _compact_merges(content.get("model", {}))
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")
    return Tokenizer.from_str(text)


def _compact_merges(model: dict[str, Any]) -> None:
    """Write BPE merges as "a b" rather than ["a", "b"], which loads in half the time and a third of the memory."""
    merges = model.get("merges")
    if merges and all(isinstance(pair, list) and not any(" " in part for part in pair) for pair in merges):
        model["merges"] = [" ".join(pair) for pair in merges]


def first_difference(original: Any, rebuilt: Tokenizer | CodePointTokenizer) -> str | None:
    """The first text for which a tokenizer.json gives other ids than the tokenizer it was made from.

    Args:
        original: a tokenizer of transformers.
        rebuilt: the tokenizer that the runtime would load.

    Returns:
        the text, shortened and quoted; None if all ids are the same.
    """
    for text in _texts_for(original):
        if _ids_of(original, text) != rebuilt.encode(text).ids:
            return repr(text[:40])
    first, second = _PIECES[:2]
    if _ids_of(original, first, second) != rebuilt.encode(first, second).ids:
        return repr((first, second))
    return None


def _ids_of(original: Any, *texts: str) -> Any:
    if not reads_pages(original):
        return original(*texts, verbose=False)["input_ids"]
    words = texts[-1].split()
    return original(*texts[:-1], words, boxes=[[0] * 4] * len(words), verbose=False)["input_ids"]


def reads_pages(tokenizer: Any) -> bool:
    """Whether a tokenizer of transformers takes words and their boxes in place of a text."""
    return hasattr(tokenizer, "cls_token_box")


def _texts_for(original: Any) -> Iterator[str]:
    if reads_pages(original):
        # The runtime gives it words with one space between them.
        yield from filter(None, (" ".join(text.split()) for text in difficult_texts()))
        return
    yield from difficult_texts()
    # Nobody writes these in a text, and SigLIP's reads what follows them as if it went on.
    edges = {original.bos_token, original.eos_token, original.unk_token, original.pad_token}
    added = [token.content for token in original.added_tokens_decoder.values() if token.content not in edges]
    yield from (f"one {token} two{token}three" for token in added[:_ALONE])
    yield " ".join(added)


def convert(slow: Any, name: str) -> Any:
    """Rebuild a tokenizer that is written in Python.

    Args:
        slow: a tokenizer of transformers without a backend.
        name: what to call its model in errors.

    Returns:
        a tokenizer of transformers with a backend that gives the same ids.

    Raises:
        ExportError: no way of rebuilding it gives the same ids.
    """
    problem = "there is no way to rebuild it"
    for build in _WAYS:
        try:
            rebuilt = build(slow)
        except Exception:  # a way for other tokenizers may raise anything
            continue
        surround(rebuilt, slow)
        fast = _wrapped(rebuilt, slow)
        differing = first_difference(slow, fast.backend_tokenizer)
        if differing is None:
            return fast
        problem = f"rebuilt, it reads {differing} otherwise"
    raise ExportError(
        f"the tokenizer of {name}, a {type(slow).__name__}, cannot be written as tokenizer.json: {problem}"
    )


def _by_bytes(slow: Any) -> Tokenizer:
    """A token for each byte of UTF-8, in their order (ByT5)."""
    (first,) = slow.convert_tokens_to_ids(slow.tokenize("!"))
    offset = first - ord("!")
    letters = _letters_of_bytes()
    special = {token.content: index for index, token in slow.added_tokens_decoder.items()}
    rebuilt = Tokenizer(models.BPE({**special, **{letters[byte]: offset + byte for byte in range(256)}}, []))
    rebuilt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # ByT5 drops invalid UTF-8, which decodes to U+FFFD; a U+FFFD that was in the text is replaced meanwhile.
    written, aside = "\N{REPLACEMENT CHARACTER}", "\ufdd1"
    rebuilt.decoder = decoders.Sequence(
        [
            decoders.Fuse(),
            decoders.Replace(_in_letters(written), _in_letters(aside)),
            decoders.ByteLevel(),
            decoders.Replace(written, ""),
            decoders.Replace(aside, written),
        ]
    )
    return with_added_tokens(rebuilt, slow)


def _letters_of_bytes() -> list[str]:
    """The character that stands for each byte in the tokenizers package: printable ones for themselves, as in GPT-2."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _in_letters(text: str) -> str:
    letters = _letters_of_bytes()
    return "".join(letters[byte] for byte in text.encode())


def _by_vocabulary(slow: Any) -> Tokenizer:
    """A token for each piece of the text that is in the vocabulary, and for each word left between them (ESM)."""
    vocabulary = slow.get_vocab()
    rebuilt = Tokenizer(models.WordLevel(vocabulary, unk_token=slow.unk_token))
    pieces = "|".join(re.escape(token) for token in sorted(vocabulary, key=len, reverse=True))
    rebuilt.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pieces), "isolated"), pre_tokenizers.Split(Regex(_SPACES), "removed")]
    )
    return with_added_tokens(rebuilt, slow)


def _by_word_pieces(slow: Any) -> Tokenizer:
    """BERT's words and pieces of words, without characters for private use and unassigned ones (RoCBert)."""
    rebuilt = Tokenizer(models.WordPiece(slow.get_vocab(), unk_token=slow.unk_token, max_input_chars_per_word=100))
    settings = slow.basic_tokenizer
    cleaned = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.tokenize_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.do_lower_case,
    )
    rebuilt.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"[\p{Co}\p{Cn}]"), ""), cleaned])
    rebuilt.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rebuilt.decoder = decoders.WordPiece()
    return with_added_tokens(rebuilt, slow)


def _by_transformers(slow: Any) -> Tokenizer:
    """As transformers itself converts tokenizers of this class."""
    return SLOW_TO_FAST_CONVERTERS[type(slow).__name__](slow).converted()


def _by_sentencepiece(slow: Any) -> Tokenizer:
    """A sentencepiece model with no further rules.

    As in all fast tokenizers of transformers, a combining mark on a character that is normalized away (½, …) is lost.
    """
    return with_added_tokens(SpmConverter(slow).converted(), slow)


def _by_bare_words(slow: Any) -> Tokenizer:
    """A sentencepiece model of texts without ASCII punctuation and with single spaces (SigLIP)."""
    rebuilt = _by_sentencepiece(slow)
    steps = [
        *([normalizers.Lowercase()] if slow.do_lower_case else []),
        normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
        normalizers.Replace(Regex(_SPACES), " "),
        normalizers.Strip(),
    ]
    rebuilt.normalizer = normalizers.Sequence([*steps, rebuilt.normalizer])
    return rebuilt


_WAYS: tuple[Callable[[Any], Tokenizer], ...] = (
    _by_transformers,
    _by_sentencepiece,
    _by_bare_words,
    _by_bytes,
    _by_word_pieces,
    _by_vocabulary,
)


def with_added_tokens(rebuilt: Tokenizer, slow: Any) -> Tokenizer:
    """Add the tokens that the original recognizes before it splits a text.

    Raises:
        ValueError: one of them gets another id.
    """
    for index, token in sorted(slow.added_tokens_decoder.items()):
        special = token.special or token.content in slow.all_special_tokens
        (rebuilt.add_special_tokens if special else rebuilt.add_tokens)([token])
        if rebuilt.token_to_id(token.content) != index:
            raise ValueError(f"{token.content} becomes {rebuilt.token_to_id(token.content)}, not {index}")
    return rebuilt


def surround(rebuilt: Tokenizer, slow: Any) -> None:
    """Add the original's special tokens around a text or a pair."""
    single, pair = _template(slow, [[-1]]), _template(slow, [[-1], [-2]])
    known = sorted({part for part, _ in (*single, *pair) if isinstance(part, int)})
    rebuilt.post_processor = processors.TemplateProcessing(
        single=[f"{part}:{kind}" for part, kind in single],
        pair=[f"{part}:{kind}" for part, kind in pair],
        special_tokens=[
            {"id": str(token), "ids": [token], "tokens": [slow.convert_ids_to_tokens(token)]} for token in known
        ],
    )


def _template(slow: Any, parts: list[list[int]]) -> list[tuple[int | str, int]]:
    """Id and type of each token that the original makes of texts of one token each, which are called $A and $B."""
    places = {-1: "$A", -2: "$B"}
    ids = slow.build_inputs_with_special_tokens(*parts)
    kinds = slow.create_token_type_ids_from_sequences(*parts)
    if len(kinds) != len(ids):
        kinds = [0] * len(ids)
    return [(places.get(token, token), kind) for token, kind in zip(ids, kinds, strict=True)]


def _wrapped(rebuilt: Tokenizer, slow: Any) -> Any:
    known = slow.added_tokens_decoder
    special = {
        key: known.get(slow.convert_tokens_to_ids(value), value)
        for key, value in slow.special_tokens_map.items()
        if isinstance(value, str)
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=rebuilt,
        model_max_length=slow.model_max_length,
        model_input_names=slow.model_input_names,
        chat_template=slow.chat_template,
        **special,
    )
