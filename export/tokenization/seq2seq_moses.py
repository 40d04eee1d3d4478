"""Rebuilds tokenizers of transformers that split texts by Moses' rules and words by BPE (FSMT).

Both languages share the merges; which pieces have an id differs between the two vocabularies.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models

from triform.export.tokenization.conversion import surround, with_added_tokens
from triform.runtime.bundle.text_info import MosesInfo
from triform.runtime.encoder_decoder.source_text import UNLISTED

_END = "</w>"
_ATTRIBUTES = ("moses_pipeline", "bpe_ranks", "encoder", "decoder", "src_lang", "tgt_lang")


def moses_of(tokenizer: Any, replaced: dict[str, str]) -> MosesInfo | None:
    """How the runtime must split texts into words; None for a tokenizer of another kind.

    Args:
        tokenizer: of transformers.
        replaced: replacements in a decoded text.
    """
    if not all(hasattr(tokenizer, name) for name in _ATTRIBUTES):
        return None
    return MosesInfo(tokenizer.src_lang, tokenizer.tgt_lang, bool(tokenizer.do_lower_case), replaced)


def reading_words(tokenizer: Any) -> Tokenizer:
    """The tokenizer that gives the words of the source language their ids.

    Pieces that the vocabulary lacks get ids after it; the runtime maps them to the unknown token.
    """
    rebuilt = with_added_tokens(_tokenizer(tokenizer, tokenizer.get_vocab()), tokenizer)
    surround(rebuilt, tokenizer)
    return rebuilt


def writing_words(tokenizer: Any) -> Tokenizer:
    """The tokenizer that decodes ids to words of the target language; its special tokens are in its own vocabulary."""
    vocabulary = target_vocabulary(tokenizer)
    rebuilt = _tokenizer(tokenizer, vocabulary)
    special = [token for token in tokenizer.all_special_tokens if token in vocabulary]
    rebuilt.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return rebuilt


def target_vocabulary(tokenizer: Any) -> dict[str, int]:
    """Id of each token of the target language."""
    return {token: index for index, token in tokenizer.decoder.items()}


def _tokenizer(tokenizer: Any, vocabulary: dict[str, int]) -> Tokenizer:
    merges = [pair for pair in sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get) if len(pair) == 2]
    size = max(*tokenizer.get_vocab().values(), *tokenizer.decoder) + 1
    numbered = _numbered(vocabulary, size, merges)
    rebuilt = Tokenizer(models.BPE(numbered, merges, unk_token=tokenizer.unk_token, end_of_word_suffix=_END))
    rebuilt.decoder = decoders.Sequence(
        [
            # An id without a token is shown as the unknown token.
            decoders.Replace(Regex(rf"{UNLISTED}\d+"), tokenizer.unk_token),
            decoders.Replace(" ", ""),
            decoders.Replace(_END, " "),
            decoders.Fuse(),
        ]
    )
    return rebuilt


def _numbered(vocabulary: dict[str, int], size: int, merges: list[tuple[str, str]]) -> dict[str, int]:
    """The vocabulary, names for ids below `size` that have no token, and then the other pieces of the merges."""
    names = [f"{UNLISTED}{index}" for index in range(size)]
    for token, index in vocabulary.items():
        names[index] = token
    merged = dict.fromkeys(piece for first, second in merges for piece in (first, second, first + second))
    return {name: index for index, name in enumerate([*names, *(piece for piece in merged if piece not in vocabulary)])}
