"""Between text and token ids: the tokenizer file, and text that arrives a token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from triform.runtime.errors import BundleError

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Protocol):
    """What is used of tokenizers.Tokenizer."""

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Any:
        """The encoding of a text; its `ids` are the token ids."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`."""


def load_tokenizer(path: Path) -> Tokenizer:
    """Read tokenizer.json.

    Raises:
        BundleError: the file is damaged.
    """
    from tokenizers import Tokenizer as Backend

    try:
        tokenizer: Tokenizer = Backend.from_file(str(path))
        return tokenizer
    except Exception as error:  # tokenizers raises plain Exception
        raise BundleError(f"{path} cannot be read as a tokenizer ({error}); copy the bundle again") from None


class IncrementalDetokenizer:
    """Turns tokens into text as they come; pieces joined equal the decoding of the whole.

    A token may hold part of a character, and decoders may treat the first token of a text differently. So a window of
    recent tokens is decoded each time, what was sent of it before is cut off, and trailing U+FFFD, which is how an
    unfinished character shows, are held back until they turn into something or the text ends.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._fresh = 0
        self._sent = 0

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain, possibly empty."""
        self._window.append(token)
        text = self._decode(self._window)
        whole = text.rstrip(_REPLACEMENT)
        piece, self._sent = whole[self._sent :], max(self._sent, len(whole))
        if whole == text:
            # Everything is sent. The newest tokens stay as context: decoded alone, they could lose a leading space.
            self._window, self._fresh = self._window[self._fresh :], len(self._window) - self._fresh
            self._sent = len(self._decode(self._window))
        return piece

    def flush(self) -> str:
        """What is left at the end, unfinished characters shown as U+FFFD."""
        text = self._decode(self._window)
        piece, self._sent = text[self._sent :], len(text)
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
