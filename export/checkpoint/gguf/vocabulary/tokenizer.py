"""Builds the tokenizer of a file from its vocabulary: byte-level BPE, sentencepiece's, or WordPiece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.vocabulary.pre_tokenizers import pre_tokenizer_of
from triform.export.checkpoint.gguf.vocabulary.special_tokens import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SpecialIds,
    special_ids,
    token_kinds,
)
from triform.export.checkpoint.gguf.vocabulary.templates import gguf_chat_templates
from triform.runtime.errors import ExportError, UnsupportedError

_SPACE = "▁"
# Phi-3's added tokens that do not strip the white space after them.
_KEEPS_SPACES = ("<unk>", "<s>", "<|endoftext|>")
_KNOWN = {
    "model", "pre", "tokens", "scores", "token_type", "merges", "bos_token_id", "eos_token_id", "eos_token_ids",
    "eot_token_id", "eom_token_id", "unknown_token_id", "seperator_token_id", "padding_token_id", "cls_token_id",
    "mask_token_id", "add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "suppress_tokens",
    "token_type_count", "normalizer.lowercase", "normalizer.strip_accents",
    # For fill-in-the-middle; templates use these tokens by name.
    "fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id",
    "fim_sep_token_id", "prefix_token_id", "suffix_token_id", "middle_token_id",
    # For vocabularies of type t5.
    "remove_extra_whitespaces", "precompiled_charsmap",
}  # fmt: skip


def build_tokenizer(file: GgufFile) -> Any:
    """The tokenizer as transformers' class, with its chat templates.

    Raises:
        ExportError: the vocabulary is damaged, or has unknown keys.
        UnsupportedError: its type is not supported.
    """
    _check_keys(file)
    kind = file.values.get("tokenizer.ggml.model")
    if kind not in _BUILDERS:
        raise UnsupportedError(
            f"{file.path.name} has a tokenizer of type {kind!r}, which is not supported; "
            f"those that are: {', '.join(_BUILDERS)}"
        )
    tokens, ids = _tokens(file), special_ids(file)
    kinds = token_kinds(file, tokens)
    tokenizer, add_bos = _BUILDERS[kind](file, tokens, kinds, ids)
    tokenizer.add_tokens(_added(file, tokens, kinds))
    _surround(tokenizer, file, tokens, ids, add_bos)
    named = {
        "bos_token": ids.bos, "eos_token": ids.eos, "unk_token": ids.unknown, "pad_token": ids.pad,
        "sep_token": ids.separator, "mask_token": ids.mask, "cls_token": ids.bos if kind == "bert" else None,
    }  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=gguf_chat_templates(file),
        clean_up_tokenization_spaces=False,
        model_max_length=int(file.values.get(f"{file.architecture}.context_length", 10**30)),
        model_input_names=["input_ids", *(["token_type_ids"] if kind == "bert" else []), "attention_mask"],
        **{name: _plain(tokenizer, index) for name, index in named.items() if index is not None},
    )


def _check_keys(file: GgufFile) -> None:
    prefix = "tokenizer.ggml."
    unknown = [key for key in file.values if key.startswith(prefix) and key.removeprefix(prefix) not in _KNOWN]
    if unknown:
        raise ExportError(
            f"{file.path.name} has keys that are not supported and may change its tokens: "
            f"{', '.join(sorted(unknown)[:3])}"
        )


def _plain(tokenizer: Tokenizer, index: int) -> str:
    return str(tokenizer.id_to_token(index))


def _tokens(file: GgufFile) -> list[str]:
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(file.values["tokenizer.ggml.tokens"])]
    if len(set(tokens)) != len(tokens):
        twice = next(token for index, token in enumerate(tokens) if token in tokens[:index])
        raise ExportError(f"{file.path.name} has the token {twice!r} twice in its vocabulary")
    rows = file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else len(tokens)
    if len(tokens) > rows:
        raise ExportError(f"{file.path.name} has {len(tokens)} tokens but {rows} rows in token_embd.weight")
    return tokens


def _added(file: GgufFile, tokens: list[str], kinds: list[int]) -> list[AddedToken]:
    """The tokens that are found in a text before it is split."""
    is_phi3 = file.architecture == "phi3" and file.values.get("tokenizer.ggml.model") == "llama"
    return [
        AddedToken(
            token,
            special=kind != USER_DEFINED,
            normalized=False,
            rstrip=is_phi3 and token not in _KEEPS_SPACES,
        )
        for token, kind in zip(tokens, kinds, strict=False)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]


def _surround(tokenizer: Tokenizer, file: GgufFile, tokens: list[str], ids: SpecialIds, add_bos: bool) -> None:
    """Make the tokenizer add the special tokens around a text."""
    values = file.values
    is_bert = values.get("tokenizer.ggml.model") == "bert"
    add_eos = values.get("tokenizer.ggml.model") == "t5"
    before = ids.bos if values.get("tokenizer.ggml.add_bos_token", add_bos) or is_bert else None
    behind = ids.separator if is_bert else (ids.eos if values.get("tokenizer.ggml.add_eos_token", add_eos) else None)
    if is_bert and (before is None or behind is None):
        raise ExportError(f"{file.path.name} does not say which tokens go around a text (cls and separator)")
    if before is None and behind is None:
        return
    first = "" if before is None else f"{before}:0 "
    last = "" if behind is None else f" {behind}:0"
    # BERT puts a separator between the texts of a pair; others put one text after the other.
    again = "" if is_bert else first.replace(":0", ":1")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first}$A:0{last}".split(" "),
        pair=f"{first}$A:0{last} {again}$B:1{last.replace(':0', ':1')}".split(" "),
        special_tokens=[
            {"id": str(index), "ids": [index], "tokens": [_plain(tokenizer, index)]}
            for index in sorted({index for index in (before, behind) if index is not None})
        ],
    )


_Built = tuple[Tokenizer, bool]


def _byte_level(file: GgufFile, tokens: list[str], kinds: list[int], ids: SpecialIds) -> _Built:
    way = pre_tokenizer_of(file)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = _listed_merges(file, vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=way.ignore_merges))
    if way.composed:
        tokenizer.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in way.patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, way.add_bos


def _listed_merges(file: GgufFile, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that a file lists, without those of tokens that it does not have.

    Raises:
        ExportError: it lists none.
    """
    listed = file.values.get("tokenizer.ggml.merges")
    if listed is None:
        raise ExportError(f"{file.path.name} has no merges (tokenizer.ggml.merges)")
    # A merge's first part may itself begin with a space.
    merges = [(merge[: merge.index(" ", 1)], merge[merge.index(" ", 1) + 1 :]) for merge in listed if " " in merge[1:]]
    return [pair for pair in merges if "".join(pair) in vocabulary and pair[0] in vocabulary and pair[1] in vocabulary]


def _sentencepiece(file: GgufFile, tokens: list[str], kinds: list[int], ids: SpecialIds) -> _Built:
    scores = file.values.get("tokenizer.ggml.scores")
    if scores is None or len(scores) < len(tokens):
        raise ExportError(f"{file.path.name} has no score for each of its tokens (tokenizer.ggml.scores)")
    merges = merges_of(tokens, np.asarray(scores, np.float64).tolist())
    prefixed = bool(file.values.get("tokenizer.ggml.add_space_prefix", True))
    return _of_whole_texts(tokens, merges, ids, prefixed), True


def _gemma4(file: GgufFile, tokens: list[str], kinds: list[int], ids: SpecialIds) -> _Built:
    """Build the tokenizer of Gemma 4, which is sentencepiece's with the merges of the file."""
    merges = _listed_merges(file, {token: index for index, token in enumerate(tokens)})
    prefixed = bool(file.values.get("tokenizer.ggml.add_space_prefix", False))
    return _of_whole_texts(tokens, merges, ids, prefixed), True


def _of_whole_texts(tokens: list[str], merges: list[tuple[str, str]], ids: SpecialIds, prefixed: bool) -> Tokenizer:
    """BPE of texts that are not split, whose spaces are letters; letters that are no tokens are taken as bytes."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = None if ids.unknown is None else tokens[ids.unknown]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend(_SPACE)] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    back = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, *([decoders.Strip(" ", 1, 0)] if prefixed else [])])
    return tokenizer


def merges_of(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """The merges that make each token of two others, in the order in which sentencepiece applies them.

    Args:
        tokens: the tokens by id.
        scores: the scores by id; a merge to a token with a higher score comes first.
    """
    ids = {token: index for index, token in enumerate(tokens)}
    ranked: list[tuple[float, int, int, int]] = []
    for index, token in enumerate(tokens):
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                ranked.append((-scores[index], index, left, right))
    ranked.sort()
    return [(tokens[left], tokens[right]) for _, _, left, right in ranked]


def _word_piece(file: GgufFile, tokens: list[str], kinds: list[int], ids: SpecialIds) -> _Built:
    """Build WordPiece. llama.cpp marks the first piece of each word; WordPiece marks all other pieces."""
    pieces = [
        token if kind == CONTROL else token[1:] if token.startswith(_SPACE) else f"##{token}"
        for token, kind in zip(tokens, kinds, strict=False)
    ]
    if len(set(pieces)) != len(pieces) or ids.unknown is None:
        raise ExportError(f"{file.path.name} has a vocabulary that is not one of BERT's")
    # Most files do not say whether texts are lowercased; their vocabulary shows it: it has capitals or none.
    cased = any(piece != piece.lower() for piece, kind in zip(pieces, kinds, strict=False) if kind == NORMAL)
    lowercase = bool(file.values.get("tokenizer.ggml.normalizer.lowercase", not cased))
    strip = file.values.get("tokenizer.ggml.normalizer.strip_accents", lowercase)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=pieces[ids.unknown]))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=bool(strip), lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, True


def _unigram(file: GgufFile, tokens: list[str], kinds: list[int], ids: SpecialIds) -> _Built:
    """Build sentencepiece's Unigram: the likeliest pieces of a text, which is normalized by the file's own table."""
    scores = file.values.get("tokenizer.ggml.scores")
    if scores is None or len(scores) < len(tokens) or ids.unknown is None:
        raise ExportError(f"{file.path.name} has no score for each of its tokens, or no unknown token")
    pieces = list(zip(tokens, np.asarray(scores, np.float64).tolist(), strict=False))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=ids.unknown, byte_fallback=False))
    table = file.values.get("tokenizer.ggml.precompiled_charsmap")
    steps: list[Any] = [] if table is None else [normalizers.Precompiled(np.asarray(table).astype(np.uint8).tobytes())]
    if file.values.get("tokenizer.ggml.remove_extra_whitespaces", False):
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    prefixed = "always" if file.values.get("tokenizer.ggml.add_space_prefix", True) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=prefixed)
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme=prefixed)
    return tokenizer, False


_BUILDERS: dict[str, Callable[[GgufFile, list[str], list[int], SpecialIds], _Built]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "gemma4": _gemma4,
    "bert": _word_piece,
    "t5": _unigram,
}
