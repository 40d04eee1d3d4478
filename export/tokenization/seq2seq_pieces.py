"""Rebuilds tokenizers of transformers that pair a sentencepiece model with their own vocabulary.

The sentencepiece model splits a text into pieces, and the vocabulary gives their ids (Marian, M2M-100, Speech2Text).
The two need not agree: tokens of only one of them are kept apart, so that texts are split as sentencepiece does.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import generate_merges, import_protobuf

from triform.runtime.encoder_decoder.source_text import UNLISTED

_NORMAL, _USER_DEFINED, _BYTE = 1, 4, 6
_UNIGRAM, _BPE = 1, 2
_META = "▁"
# An unassigned character, which ends a grapheme.
_APART = "\ufff0"
_MARK = r"[\p{M}\x{200C}\x{200D}\x{FF9E}\x{FF9F}\x{1F3FB}-\x{1F3FF}]"


@dataclass(frozen=True)
class Pieces:
    """A sentencepiece model and the ids of a vocabulary.

    Attributes:
        proto: sentencepiece's ModelProto.
        vocabulary: id of each token.
        whole: tokens that are recognized before the model splits a text.
        unknown: the token for pieces that are not in the vocabulary.
        codes: whether a text may begin with a token in the form of ``>>fra<<``.
    """

    proto: Any
    vocabulary: dict[str, int]
    whole: frozenset[str]
    unknown: str
    codes: bool = False


def parse(serialized: bytes) -> Any:
    """Sentencepiece's ModelProto from the bytes of a ``.model`` or ``.spm`` file."""
    proto = import_protobuf().ModelProto()
    proto.ParseFromString(serialized)
    return proto


def tokenizer_of(pieces: Pieces) -> Tokenizer:
    """A tokenizer that splits as the sentencepiece model does and gives the vocabulary's ids.

    Tokens of the vocabulary that the model never yields are named with `UNLISTED` before them. Pieces of the model
    that the vocabulary lacks get ids after it; the runtime maps them to the unknown token.
    A combining mark on a character that is normalized away (½, …) is lost, as in all fast tokenizers of transformers.

    Raises:
        ValueError: the model is neither of the unigram nor of the BPE kind.
    """
    spec = pieces.proto.trainer_spec
    scores = _scores(pieces.proto)
    names = _names(pieces, scores)
    if spec.model_type == _UNIGRAM:
        lowest = min(scores.values())
        model: Any = models.Unigram(
            [(name, scores.get(name, lowest)) for name in names],
            unk_id=pieces.vocabulary[pieces.unknown],
            byte_fallback=spec.byte_fallback,
        )
    elif spec.model_type == _BPE:
        order = {piece: index for index, piece in enumerate(scores)}
        model = models.BPE(
            {name: index for index, name in enumerate(names)},
            generate_merges(order, scores),
            unk_token=pieces.unknown,
            fuse_unk=True,
            byte_fallback=spec.byte_fallback,
        )
    else:
        raise ValueError("sentencepiece models of words or characters are not supported")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(pieces)
    tokenizer.pre_tokenizer = _pre_tokenizer(pieces, scores)
    tokenizer.decoder = decoder(byte_fallback=spec.byte_fallback)
    return tokenizer


def decoder(*, byte_fallback: bool) -> Any:
    """A decoder that joins pieces and strips spaces, as the tokenizers of this kind in transformers do."""
    return decoders.Sequence(
        [
            decoders.Replace(UNLISTED, ""),
            decoders.Replace(_META, " "),
            *([decoders.ByteFallback()] if byte_fallback else []),
            decoders.Fuse(),
            decoders.Replace(Regex(r"\A +| +\z"), ""),
        ]
    )


def _scores(proto: Any) -> dict[str, float]:
    """Score of each piece that a text can be split into."""
    normal = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    best = max(normal.values())
    # Sentencepiece's formula: a user-defined piece wins over any other split of the same text.
    defined = {piece.piece: len(piece.piece) * best - 0.1 for piece in proto.pieces if piece.type == _USER_DEFINED}
    return {**normal, **defined}


def _names(pieces: Pieces, scores: dict[str, float]) -> list[str]:
    listed = set(scores) | pieces.whole | {pieces.unknown}
    in_bytes = [piece.piece for piece in pieces.proto.pieces if piece.type == _BYTE]
    listed.update(in_bytes)
    names = [f"{UNLISTED * 2}{index}" for index in range(max(pieces.vocabulary.values()) + 1)]
    for token, index in pieces.vocabulary.items():
        apart = token not in listed or (pieces.codes and _is_code(token))
        names[index] = UNLISTED + token if apart else token
    known = set(names)
    return [*names, *(piece for piece in (*scores, *in_bytes) if piece not in known)]


def _is_code(token: str) -> bool:
    return token.startswith(">>") and token.endswith("<<")


def _normalizer(pieces: Pieces) -> Any:
    """Sentencepiece's normalization: characters, spaces, a leading space. Language codes are marked before it."""
    spec = pieces.proto.normalizer_spec
    steps: list[Any] = []
    if pieces.codes:
        codes = "|".join(re.escape(token[2:-2]) for token in pieces.vocabulary if _is_code(token))
        steps.append(normalizers.Replace(Regex(rf"\A(?=>>(?:{codes})<<)"), UNLISTED))
        # Two characters that no piece contains: one unknown token.
        steps.append(normalizers.Replace(Regex(r"\A>>[\s\S]*?<<"), UNLISTED * 2))
    if spec.precompiled_charsmap:
        steps.extend(_characters(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if spec.add_dummy_prefix:
        code = _code() if pieces.codes else ""
        # The space that is left behind a code.
        already = " |" if pieces.codes and spec.remove_extra_whitespaces else ""
        steps.append(normalizers.Replace(Regex(rf"\A(?:{code})?\K(?!{UNLISTED}|{already}\z)"), " "))
    if spec.escape_whitespaces:
        steps.append(normalizers.Replace(" ", _META))
    return normalizers.Sequence(steps)


@cache
def _characters(charsmap: bytes) -> tuple[Any, ...]:
    """Sentencepiece's character map.

    The tokenizers package maps a character and drops a mark on it; kept apart, both come out as in sentencepiece.
    Longer sequences that sentencepiece composes (decomposed Hangul) do not.
    """
    precompiled = normalizers.Precompiled(charsmap)
    if precompiled.normalize_str(_APART) != _APART:
        return (precompiled,)
    mapped = [code for code in range(sys.maxunicode + 1) if _is_mapped(precompiled, chr(code))]
    return (
        normalizers.Replace(Regex(rf"(?<=[{_ranges(mapped)}])(?={_MARK})"), _APART),
        precompiled,
        normalizers.Replace(_APART, ""),
    )


def _is_mapped(precompiled: Any, character: str) -> bool:
    if unicodedata.category(character) in ("Cn", "Co", "Cs"):
        return False
    return bool(precompiled.normalize_str(character) != character)


def _ranges(codes: list[int]) -> str:
    """Ranges for a character class of a regular expression."""
    starts = [code for code, before in zip(codes, [-1, *codes], strict=False) if code - 1 != before]
    ends = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code + 1 != after]
    return "".join(rf"\x{{{start:X}}}-\x{{{end:X}}}" for start, end in zip(starts, ends, strict=True))


def _code() -> str:
    return rf"{UNLISTED}(?:{UNLISTED}|>>[\s\S]*?<<)"


def _pre_tokenizer(pieces: Pieces, scores: dict[str, float]) -> Any:
    split = not any(_META in piece[1:] for piece in scores)
    return pre_tokenizers.Sequence(
        [
            *([pre_tokenizers.Split(Regex(rf"\A{_code()}"), "isolated")] if pieces.codes else []),
            pre_tokenizers.Metaspace(replacement=_META, prepend_scheme="never", split=split),
        ]
    )
