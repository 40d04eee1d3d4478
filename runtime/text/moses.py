"""Splits texts into words before a subword tokenizer, and joins words after it, by the rules of the Moses scripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from triform.runtime.extras import missing_extra


class MosesTokenizer:
    """A tokenizer for one language with the interface of tokenizers.Tokenizer, as in transformers' FSMT.

    The package sacremoses has the rules. Special tokens in a text are not split.

    Attributes:
        holds_back: True, because a decoded text may change until its last token: whether words are joined depends on
            the words and quotation marks around them.
    """

    holds_back = True

    def __init__(
        self, backend: Any, language: str, *, lowercase: bool = False, replaced: Mapping[str, str] | None = None
    ) -> None:
        """Prepare the rules.

        Args:
            backend: tokenizers.Tokenizer, which encodes and decodes words.
            language: the texts' language code in sacremoses; an unknown one is treated as English.
            lowercase: whether to lowercase texts before encoding.
            replaced: strings to replace in a decoded text, in this order.

        Raises:
            UnsupportedError: sacremoses is not installed.
        """
        try:
            import sacremoses
        except ImportError:
            raise missing_extra("splitting this model's texts into words needs sacremoses", "moses") from None
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
        """The backend's encoding of the words of a text."""
        return self._backend.encode(self.words(sequence), is_pretokenized=True, add_special_tokens=add_special_tokens)

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[Any]:
        """The backend's encoding of the words of each text."""
        words = [self.words(text) for text in texts]
        encodings: list[Any] = self._backend.encode_batch(
            words, is_pretokenized=True, add_special_tokens=add_special_tokens
        )
        return encodings

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids, with its words joined."""
        words = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens).split()
        text: str = self._joiner.detokenize(words)
        for spaced, closed in self._replaced.items():
            text = text.replace(spaced, closed)
        return text

    def words(self, text: str) -> list[str]:
        """The words and special tokens of a text. XML's special characters in words are escaped, as in Moses."""
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
        # Control characters by Python's Unicode tables, as in transformers; sacremoses' own option uses other tables.
        text = "".join(character for character in text if not unicodedata.category(character).startswith("C"))
        words: list[str] = self._cutter.tokenize(text, aggressive_dash_splits=True)
        return words
