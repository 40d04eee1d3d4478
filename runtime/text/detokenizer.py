"""Incremental detokenizer: turns token ids into text as they come, in whole characters."""

from __future__ import annotations

import re

from triform.runtime.text.tokenizer import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Some decoders remove spaces: " ." to ".", " ' " to "'", " n't" to "n't", " 've" to "'ve". All of these patterns begin
# with a space, and all of their characters but the last are among these.
_OPEN = " 'nvr"
_UNSETTLED = re.compile(rf" [{_OPEN}]*\Z")


class IncrementalDetokenizer:
    """Turns tokens into text as they come; the joined pieces equal the decoding of all tokens.

    Decoders treat the first token of a text differently, so tokens are decoded together with some before them, whose
    text is cut off. Text that a further token may change is held back: a trailing U+FFFD, which stands for an
    unfinished character; spaces that a decoder may remove; and a run of tokens for single bytes (``<0xE4>``), which
    byte-fallback decoders decode as a whole: one wrong byte turns every character of its run into U+FFFD. For
    tokenizers with ``holds_back`` everything is held back.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._holds_back = bool(getattr(tokenizer, "holds_back", False))
        # Tokens decoded together: the first `_context` of them are sent, and so are `_sent` characters of their text.
        self._window: list[int] = []
        self._context = 0
        self._sent = 0
        self._in_bytes = False

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain, possibly empty."""
        self._window.append(token)
        if self._holds_back or self._continues_bytes(token):
            return ""
        text = self._decode(self._window)
        certain = _UNSETTLED.sub("", text.removesuffix(_REPLACEMENT))
        piece, self._sent = certain[self._sent :], max(self._sent, len(certain))
        # No pattern continues across any other character, so the text to come does not depend on earlier tokens.
        if not text.endswith((*_OPEN, _REPLACEMENT)):
            self._forget_old()
        return piece

    @property
    def held(self) -> str:
        """The text that `flush` would return now."""
        return self._decode(self._window)[self._sent :]

    def flush(self) -> str:
        """The rest of the text at the end, with U+FFFD for unfinished characters."""
        piece = self.held
        self._sent += len(piece)
        return piece

    def _continues_bytes(self, token: int) -> bool:
        if _is_byte(self._tokenizer.id_to_token(token)):
            self._in_bytes = True
        elif self._in_bytes:
            # A token without text, such as a special one, does not end the run: decoders never see it.
            self._in_bytes = not self._decode([token])
        return self._in_bytes

    def _forget_old(self) -> None:
        """Keep only the newest tokens as context, unless they have no text. All text has been returned."""
        newest = self._window[self._context :]
        text = self._decode(newest)
        if text:
            self._window, self._context, self._sent = newest, len(newest), len(text)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)


def _is_byte(token: str | None) -> bool:
    return token is not None and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
