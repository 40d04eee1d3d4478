"""How a tokenizer splits a text: tokens, their ids, and the characters they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from triform.runtime.bundle.folder import Bundle
from triform.runtime.errors import UnsupportedError
from triform.runtime.text.rows import RowReader, TokenRow
from triform.runtime.text.tokenizer import bundle_tokenizer

# More tokens than any text has: nothing is cut.
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class TokenView:
    """One token of a text.

    Attributes:
        index: its index among the tokens, from 0.
        id: its id in the vocabulary.
        token: the vocabulary's string for it.
        start: where its text begins, in characters.
        end: after its last character; `start` for tokens that are not in the text.
        text: the text from `start` to `end`.
    """

    index: int
    id: int
    token: str
    start: int
    end: int
    text: str


def split_text(bundle: Bundle, text: str) -> list[TokenView]:
    """Split a text into all of its tokens, special ones included. Opens no model.

    Args:
        bundle: of any form that reads text.
        text: of any length; a decoder's chat template is not applied.

    Raises:
        UnsupportedError: the model does not read text.
        InputError: the text is not valid Unicode.
        BundleError: the tokenizer is damaged, or does not fit the model.
    """
    info = bundle.manifest.tokenizer
    if info is None:
        raise UnsupportedError(f"{bundle.folder} is for {bundle.manifest.task}: it reads no text")
    tokenizer = bundle_tokenizer(bundle)
    row = RowReader(tokenizer, _UNLIMITED, bundle.manifest.vocab_size).read([text])[0]
    return view_row(tokenizer, row, text)


def view_row(tokenizer: Any, row: TokenRow, text: str) -> list[TokenView]:
    """The tokens of a row made from one text.

    Args:
        tokenizer: tokenizers.Tokenizer, which made it.
        row: the row.
        text: the text.
    """
    return [
        TokenView(index, token, tokenizer.id_to_token(token), start, end, text[start:end])
        for index, (token, (start, end)) in enumerate(zip(row.ids, row.offsets, strict=True))
    ]
