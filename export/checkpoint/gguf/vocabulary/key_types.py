"""Types of the keys of a file that no config of transformers checks: those of its tokenizer, and of the whole file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from triform.export.checkpoint.gguf.container import GgufFile
from triform.runtime.errors import ExportError
from triform.runtime.printable import quoted

_TOKENIZER, _TEMPLATE, _SAMPLING = "tokenizer.ggml.", "tokenizer.chat_template", "general.sampling."
_TEXTS = ("general.type", f"{_TOKENIZER}model", f"{_TOKENIZER}pre")
_LISTS_OF_TEXTS = (f"{_TOKENIZER}tokens", f"{_TOKENIZER}merges")
_LISTS_OF_NUMBERS = tuple(f"{_TOKENIZER}{name}" for name in ("scores", "precompiled_charsmap"))
_LISTS_OF_WHOLE = tuple(f"{_TOKENIZER}{name}" for name in ("token_type", "suppress_tokens"))
_BEGINNINGS_OF_TRUTHS = tuple(f"{_TOKENIZER}{name}" for name in ("add_", "normalizer.", "remove_"))


def check_key_types(file: GgufFile) -> GgufFile:
    """Return the same file.

    Raises:
        ExportError: a value is of another type than its key has in llama.cpp; names the key.
    """
    for key, value in file.values.items():
        found = _kind(key, str(file.values.get("general.architecture")))
        if found is not None and not found[1](value):
            raise ExportError(
                f"{file.path.name} has {key} = {quoted(_plain(value))}, which is not {found[0]}; fetch the file again"
            )
    return file


def _kind(key: str, architecture: str) -> tuple[str, Callable[[Any], bool]] | None:
    """What the value of a key must be, in words and as a check; None for a key that may have anything."""
    if key in _TEXTS or key == _TEMPLATE or key.startswith(f"{_TEMPLATE}."):
        return "a text", lambda value: isinstance(value, str)
    if key in _LISTS_OF_TEXTS:
        return "a list of texts", _are_texts
    if key in _LISTS_OF_NUMBERS:
        return "a list of numbers", lambda value: _has_kind(value, "iuf")
    if key in _LISTS_OF_WHOLE:
        return "a list of whole numbers", lambda value: _has_kind(value, "iu")
    if key.startswith(_BEGINNINGS_OF_TRUTHS):
        return "true or false", lambda value: isinstance(value, bool)
    if key.startswith(_TOKENIZER) and key.endswith("_token_id"):
        return "the number of a token", _is_whole
    if key.startswith(_SAMPLING):
        return "a number", lambda value: _is_whole(value) or isinstance(value, float)
    if key == f"{architecture}.context_length":
        return "a number of tokens", lambda value: _is_whole(value) and value > 0
    if key == f"{architecture}.pooling_type":
        return "a whole number", _is_whole
    return None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _has_kind(value: Any, kinds: str) -> bool:
    """Whether a value is an array of numbers of some kinds, as numpy names them; one without elements has any."""
    return (isinstance(value, np.ndarray) and value.dtype.kind in kinds) or (isinstance(value, list) and not value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
