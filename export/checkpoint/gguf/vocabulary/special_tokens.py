"""Finds the special tokens of a vocabulary: bos, eos, padding, mask, and all that end an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from triform.export.checkpoint.gguf.container import GgufFile
from triform.runtime.errors import ExportError
from triform.runtime.printable import quoted

# Kinds of tokens, as llama.cpp numbers them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
# Tokens that end an answer, as in llama.cpp. Files of older converters have some of them as other kinds of tokens.
_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]",
    "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|return|>", "<|call|>",
    "<｜end▁of▁sentence｜>",
)  # fmt: skip
# -1, as converters write it for a token that a vocabulary lacks.
_NO_TOKEN = 2**32 - 1
# An end if it is a control token; in many vocabularies it is text.
_OLD_END = "</s>"
# In a vocabulary with both of these, <|end|> ends a message but not the answer.
_HARMONY = ("<|return|>", "<|call|>")
# llama.cpp's defaults for files without these keys, by type of tokenizer.
_DEFAULTS: dict[str, dict[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "t5": {"eos": 1, "unknown": 2, "padding": 0},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0, "mask": 103},
}


@dataclass(frozen=True)
class SpecialIds:
    """The ids of special tokens; None for those that a vocabulary does not have.

    Attributes:
        ends: all tokens that end an answer, the tokenizer's eos first.
    """

    bos: int | None
    eos: int | None
    ends: list[int]
    unknown: int | None
    separator: int | None
    pad: int | None
    mask: int | None


def special_ids(file: GgufFile) -> SpecialIds:
    """The special tokens of a file.

    Raises:
        ExportError: an id is not in the vocabulary, or there is no vocabulary.
    """
    tokens = file.values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ExportError(f"{file.path.name} has no vocabulary (tokenizer.ggml.tokens)")
    ids = {name: _id(file, name, len(tokens)) for name in ("bos", "eos", "unknown", "seperator", "padding", "mask")}
    ids |= {"cls": _id(file, "cls", len(tokens))}
    ends = [ids["eos"], _id(file, "eot", len(tokens)), _id(file, "eom", len(tokens))]
    ends += _listed_ends(file, len(tokens))
    ends += _control_ends(file, tokens)
    return SpecialIds(
        bos=ids["bos"] if ids["bos"] is not None else ids["cls"],
        eos=ids["eos"],
        ends=list(dict.fromkeys(token for token in ends if token is not None)),
        unknown=ids["unknown"],
        separator=ids["seperator"],
        pad=ids["padding"],
        mask=ids["mask"],
    )


def _id(file: GgufFile, name: str, size: int) -> int | None:
    # "seperator" is how the format spells it.
    default = _DEFAULTS.get(str(file.values.get("tokenizer.ggml.model")), {}).get(name)
    key = f"tokenizer.ggml.{name}_token_id"
    token = file.values.get(key)
    if token is None or int(token) == _NO_TOKEN:
        return default if default is not None and default < size else None
    if not 0 <= int(token) < size:
        raise ExportError(f"{file.path.name} has {key} = {token}, but {size} tokens")
    return int(token)


def token_kinds(file: GgufFile, tokens: list[str]) -> list[int]:
    """The kind of each token; ends of answers are control tokens, whatever the file says, as in llama.cpp.

    Raises:
        ExportError: some tokens have no kind.
    """
    stored = file.values.get("tokenizer.ggml.token_type")
    if stored is None:
        return [NORMAL] * len(tokens)
    kinds = [int(kind) for kind in stored]
    if len(kinds) < len(tokens):
        raise ExportError(f"{file.path.name} has {len(tokens)} tokens but {len(kinds)} kinds of tokens")
    return [CONTROL if token in _ENDS else kind for token, kind in zip(tokens, kinds, strict=False)]


def _control_ends(file: GgufFile, tokens: list[str]) -> list[int]:
    kinds = token_kinds(file, tokens)
    control = {token: index for index, token in enumerate(tokens) if kinds[index] == CONTROL}
    passed_over = {"<|end|>"} if all(name in control for name in _HARMONY) else set()
    return [control[name] for name in (*_ENDS, _OLD_END) if name in control and name not in passed_over]


def _listed_ends(file: GgufFile, size: int) -> list[int]:
    key = "tokenizer.ggml.eos_token_ids"
    value: Any = file.values.get(key)
    ends = [] if value is None else np.atleast_1d(np.asarray(value)).tolist()
    for token in ends:
        if type(token) is not int or not 0 <= token < size:
            raise ExportError(f"{file.path.name} has {key} = {quoted(ends)}, but {size} tokens")
    return ends
