"""Texts cut into words, and words joined to texts, by the rules of Moses' scripts, before and after a tokenizer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from triform.runtime.extras import missing_extra


class MosesTokenizer:
    """A tokenizer of words in one language, used like tokenizers.Tokenizer (FSMT, as transformers has it).

    The rules are those of the package sacremoses; special tokens in a text are no words and stay as they are.

    Attributes:
        holds_back: nothing is certain of a decoded text before its last token: what a word is joined to depends on the
            words around it, and on the quotation marks before it.
    """

    holds_back = True

    def __init__(
        self, backend: Any, language: str, *, lowercase: bool = False, replaced: Mapping[str, str] | None = None
    ) -> None:
        """Prepare the rules.

        Args:
            backend: tokenizers.Tokenizer, which reads and writes words.
            language: of the texts, as sacremoses calls it; others are read like English.
            lowercase: whether texts are read in lower case.
            replaced: what is replaced in a decoded text, in this order.

        Raises:
            UnsupportedError: sacremoses is missing.
        """
        try:
            import sacremoses
        except ImportError:
            raise missing_extra("cutting this model's texts into words needs sacremoses", "moses") from None
        self._backend = backend
        self._lowercase = lowercase
        self._replaced = dict(replaced or {})
        self._normalizer = sacremoses.MosesPunctNormalizer(lang=language, pre_replace_unicode_punct=True)
        self._cutter = sacremoses.MosesTokenizer(lang=language)
        self._joiner = sacremoses.MosesDetokenizer(lang=language)
        special = sorted((token.content for token in backend.get_added_tokens_decoder().values()), key=len)
        self._special = re.compile("(" + "|".join(map(re.escape, reversed(special))) + ")") if special else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Any:
        """What tokenizers gives for the words of a text."""
        return self._backend.encode(self.words(sequence), is_pretokenized=True, add_special_tokens=add_special_tokens)

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[Any]:
        """What tokenizers gives for the words of each text."""
        words = [self.words(text) for text in texts]
        encodings: list[Any] = self._backend.encode_batch(
            words, is_pretokenized=True, add_special_tokens=add_special_tokens
        )
        return encodings

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`, its words joined."""
        words = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens).split()
        text: str = self._joiner.detokenize(words)
        for spaced, closed in self._replaced.items():
            text = text.replace(spaced, closed)
        return text

    def words(self, text: str) -> list[str]:
        """The words and special tokens of a text; XML's special characters are escaped in words."""
        if self._special is None:
            return self._words(text)
        parts = self._special.split(text)
        cut = []
        for words, special in zip(parts[::2], [*parts[1::2], None], strict=True):
            cut += self._words(words)
            cut += [special] if special else []
        return cut

    def _words(self, text: str) -> list[str]:
        text = self._normalizer.normalize(text.lower() if self._lowercase else text)
        # By Python's tables, as transformers has it; sacremoses' own option follows another package's Unicode.
        text = "".join(character for character in text if not unicodedata.category(character).startswith("C"))
        words: list[str] = self._cutter.tokenize(text, aggressive_dash_splits=True)
        return words
