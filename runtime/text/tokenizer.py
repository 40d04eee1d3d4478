"""Between text and token ids: the tokenizer file, and text that arrives a token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from triform.runtime.bundle.folder import Bundle
from triform.runtime.errors import BundleError
from triform.runtime.text.code_points import CodePointTokenizer


class Tokenizer(Protocol):
    """What is used of tokenizers.Tokenizer."""

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Any:
        """The encoding of a text; its `ids` are the token ids."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`."""

    def id_to_token(self, id: int) -> str | None:
        """How the vocabulary writes a token."""


def bundle_tokenizer(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle.

    Raises:
        BundleError: there is none, or its file is damaged.
    """
    info = bundle.tokenizer
    if info.code_points is not None:
        return CodePointTokenizer(info.code_points)
    return load_tokenizer(bundle.path(info.file or ""))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read tokenizer.json.

    Raises:
        BundleError: the file is damaged.
    """
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleError(f"{path} cannot be read as a tokenizer ({error}); copy the bundle again") from None
    # The file may carry the settings of its training, which would cut or fill up prompts without a word.
    backend.no_truncation()
    backend.no_padding()
    tokenizer: Tokenizer = backend
    return tokenizer
