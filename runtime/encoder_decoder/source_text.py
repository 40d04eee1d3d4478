"""Tokenizes source texts for an encoder, with their languages, and gives the tokens that a target begins with."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triform.runtime.bundle.text_info import LanguagesInfo, Side, SourceLanguage, SourceTextInfo, TargetLanguage
from triform.runtime.errors import InputError
from triform.runtime.text.moses import MosesTokenizer
from triform.runtime.text.rows import RowReader
from triform.runtime.text.tokenizer import Tokenizer, load_tokenizer

# Precedes tokens in tokenizer.json that texts are never split into: a noncharacter, so that no text contains it.
UNLISTED = "\ufdd1"
# The most characters that compose into one: a Greek letter with three marks.
_LONGEST = 4


class SourceText:
    """Tokenizes texts for an encoder, as transformers does with ``src_lang`` and ``tgt_lang``.

    Attributes:
        target: the tokenizer that decodes the generated tokens.
        languages: see `LanguagesInfo`; empty if the model has none.
    """

    def __init__(
        self, folder: Path, info: SourceTextInfo, max_length: int, vocab_size: int, *, strict: bool = False,
        truncation_side: Side = "right",
    ) -> None:  # fmt: skip
        """Read the tokenizers.

        Args:
            folder: of tokenizer.json.
            info: the manifest's record of how texts are tokenized.
            max_length: the most tokens that the encoder reads, including special tokens.
            vocab_size: size of the encoder's vocabulary.
            strict: refuse a text that is too long, instead of truncating it.
            truncation_side: where such a text is cut.

        Raises:
            BundleError: a file is damaged.
            UnsupportedError: the package that splits this model's texts into words is missing.
        """
        backend = load_tokenizer(folder / "tokenizer.json")
        self.target: Tokenizer = load_tokenizer(folder / info.target_file) if info.target_file else backend
        self.languages = info.languages or LanguagesInfo()
        self._backend = backend
        self._composed = info.composed
        reads: Any = backend
        if info.moses is not None:
            words = info.moses
            reads = MosesTokenizer(backend, words.source, lowercase=words.lowercase)
            self.target = MosesTokenizer(self.target, words.target, lowercase=words.lowercase, replaced=words.replaced)
        if info.unknown is not None:
            reads = _Known(reads, info.unknown, info.vocabulary or vocab_size)
        # Special tokens around texts are set on the tokenizer before each call; no other thread may change them then.
        self._lock = threading.Lock()
        self._reader = RowReader(reads, max_length, vocab_size, strict=strict, truncation_side=truncation_side)

    @property
    def truncated(self) -> int:
        """The number of texts truncated so far."""
        return self._reader.truncated

    @property
    def max_length(self) -> int:
        """The most tokens that the encoder reads, including special tokens."""
        return self._reader.max_length

    def length(self, text: str, *, source_lang: str | None = None, target_lang: str | None = None) -> int:
        """Count the tokens of a text, untruncated, including special tokens. Arguments and errors as in `read`."""
        with self._lock:
            (prepared,) = self._prepared([text], source_lang, target_lang)
            return self._reader.length(prepared)

    def read(
        self, texts: Sequence[str], *, source_lang: str | None = None, target_lang: str | None = None, first: int = 1
    ) -> list[list[int]]:
        """Return the ids of each text, with the special tokens of its source and target language.

        Args:
            texts: with their task's prefix, if any.
            source_lang: language of the texts; the model's default when None.
            target_lang: language to translate into; the model's default when None.
            first: the number of the first text, for errors.

        Raises:
            InputError: the model does not have a language, or needs one; a text is not valid Unicode or, if `strict`,
                too long.
        """
        with self._lock:
            texts = self._prepared(texts, source_lang, target_lang)
            return [row.ids for row in self._reader.read(texts, first=first)]

    def forced(self, target_lang: str | None = None) -> list[int]:
        """Return the ids that a target must begin with, after the start token; empty if there are none.

        Raises:
            InputError: the model does not have the language.
        """
        target = self._target(target_lang)
        return list(target.forced) if target else []

    def _prepared(self, texts: Sequence[str], source_lang: str | None, target_lang: str | None) -> Sequence[str]:
        """Set the languages' special tokens on the tokenizer; return the texts as it takes them."""
        source, target = self._source(source_lang), self._target(target_lang)
        if target is None and self._must_ask() and not all(text.startswith(">>") for text in texts):
            raise InputError(f"this model needs a target language: {_list(self.languages.targets)}")
        if self.languages != LanguagesInfo():
            self._surround(source, target.asked if target else [])
        if self._composed:
            texts = [compose(text) for text in texts]
        return texts

    def _must_ask(self) -> bool:
        return any(target.asked for target in self.languages.targets.values())

    def _source(self, name: str | None) -> SourceLanguage:
        sources = self.languages.sources
        name = name or self.languages.default_source
        if not sources:
            if name:
                raise InputError(f"this model takes no source language; leave {name!r} out")
            return self.languages.plain
        if not name:
            raise InputError(f"this model needs a source language: {_list(sources)}")
        return sources[find_language(name, sources)]

    def _target(self, name: str | None) -> TargetLanguage | None:
        targets = self.languages.targets
        name = name or self.languages.default_target
        if name and not targets:
            raise InputError(f"this model has no choice of target languages; leave {name!r} out")
        return targets[find_language(name, targets)] if name else None

    def _surround(self, source: SourceLanguage, target_ids: list[int]) -> None:
        """Let the tokenizer itself add the special tokens, so that it truncates texts to leave room for them."""
        self._backend.surround([*target_ids, *source.prefix], source.suffix)


def compose(text: str) -> str:
    """Normalize a text to NFKC as sentencepiece does, which replaces the longest sequences that become one character.

    Unicode's NFKC also reorders combining marks.
    """
    if unicodedata.is_normalized("NFKC", text):
        return text
    parts, offset = [], 0
    while offset < len(text):
        length = next(
            length for length in range(_LONGEST, 0, -1) if length == 1 or _is_one(text[offset : offset + length])
        )
        part = text[offset : offset + length]
        parts.append(unicodedata.normalize("NFKC", part) if length > 1 else part)
        offset += length
    return "".join(parts)


def _is_one(part: str) -> bool:
    return len(part) > 1 == len(unicodedata.normalize("NFKC", part))


def find_language(name: str, known: Mapping[str, object]) -> str:
    """Return the model's code for a language, given in upper or lower case or by its first part if that is unique.

    Raises:
        InputError: no language matches, or several do; the message lists them.
    """
    plain = _plain(name)
    for candidates in (
        [code for code in known if _plain(code) == plain],
        [code for code in known if _plain(code).split("_")[0] == plain],
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise InputError(f"the language {name!r} may be {' or '.join(sorted(candidates))}; name one of them")
    raise InputError(f"the model has no language {name!r}; it has {_list(known)}")


def _plain(name: str) -> str:
    return name.strip("<>_ ").replace("-", "_").lower()


def _list(known: Iterable[str]) -> str:
    return ", ".join(sorted(known))


class _Known:
    """A tokenizer whose pieces are not all in the vocabulary; those that are not become the unknown token."""

    def __init__(self, backend: Any, unknown: int, vocabulary: int) -> None:
        self._backend = backend
        self._unknown = unknown
        self._vocabulary = vocabulary

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool) -> list[Any]:
        """Encode texts as tokenizers does, with all ids in the vocabulary."""
        encodings = self._backend.encode_batch(texts, add_special_tokens=add_special_tokens)
        return [_KnownEncoding(encoding, self._ids(encoding)) for encoding in encodings]

    def _ids(self, encoding: Any) -> list[int]:
        return [
            self._listed(token) if index == self._unknown or index >= self._vocabulary else index
            for index, token in zip(encoding.ids, encoding.tokens, strict=True)
        ]

    def _listed(self, token: str) -> int:
        """The id of an unlisted token: a letter of the target language that is in the vocabulary but in no piece."""
        index: int | None = self._backend.token_to_id(UNLISTED + token)
        return self._unknown if index is None else index


@dataclass(frozen=True)
class _KnownEncoding:
    encoding: Any
    ids: list[int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoding, name)
