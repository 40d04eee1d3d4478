"""Texts as rows of token ids, cut to what a model can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from triform.runtime.errors import BundleError, InputError

Pair = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """One input of an encoder.

    Attributes:
        ids: token ids, at least one.
        type_ids: as many: 0 in a first text, 1 in a second.
        offsets: for each token, where its text begins and ends, in characters of the text it comes from; (0, 0) for
            tokens that are not in the text.
        sequence_ids: for each token, 0 or 1 for the text it comes from; None for tokens that come from neither.
        words: for each token, the number of the word it comes from, in the text it comes from.
        truncated: whether the text went on.
    """

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    words: list[int | None] = field(default_factory=list)
    truncated: bool = False


class RowReader:
    """A tokenizer that knows how much a model can read.

    Attributes:
        max_length: tokens of a row, special ones included.
        truncated: how many texts were cut so far.
    """

    def __init__(self, tokenizer: Any, max_length: int, vocab_size: int, *, strict: bool = False) -> None:
        """Keep a tokenizer.

        Args:
            tokenizer: tokenizers.Tokenizer.
            max_length: see above.
            vocab_size: ids the model knows.
            strict: refuse a text that is too long, rather than cutting it.
        """
        self._tokenizer = tokenizer
        self._strict = strict
        self._vocab_size = vocab_size
        self.max_length = max_length
        self.truncated = 0

    def read(self, texts: Sequence[str | Pair], *, add_special_tokens: bool = True) -> list[Row]:
        """One row a text or pair of texts; what is too long is cut at its end, the longer text of a pair first.

        Raises:
            InputError: a text is not valid Unicode, or too long for a strict reader.
        """
        self._tokenizer.enable_truncation(self.max_length)
        encodings = self._encode(texts, add_special_tokens)
        rows = [_row(encoding) for encoding in encodings]
        for index, row in enumerate(rows):
            if row.truncated and self._strict:
                raise InputError(
                    f"text {index + 1} is longer than the model's {self.max_length} tokens: {_start(texts[index])}"
                )
        self.truncated += sum(row.truncated for row in rows)
        return rows

    def read_windows(self, text: str | Pair, *, stride: int) -> list[Row]:
        """One text, or a pair whose second text is long, in overlapping windows that cover all of it.

        Args:
            text: the text, or the pair whose second text is cut; the first is repeated in each window.
            stride: tokens that neighbouring windows share.

        Raises:
            InputError: the text is not valid Unicode, or the first of a pair leaves no room for the second.
        """
        direction = "only_first" if isinstance(text, str) else "only_second"
        try:
            self._tokenizer.enable_truncation(self.max_length, stride=stride, strategy=direction)
            encoding = self._encode([text], True)[0]
        except BaseException as error:  # tokenizers panics where the stride leaves no room
            if isinstance(error, (InputError, BundleError, KeyboardInterrupt, SystemExit)):
                raise
            raise InputError(
                f"windows of {self.max_length} tokens that share {stride} leave no room: {_start(text)}"
            ) from None
        return [_row(one) for one in (encoding, *encoding.overflowing)]

    def _encode(self, texts: Sequence[str | Pair], add_special_tokens: bool) -> list[Any]:
        for index, text in enumerate(texts):
            for part in (text,) if isinstance(text, str) else text:
                try:
                    part.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise InputError(
                        f"text {index + 1} is not valid Unicode at character {error.start + 1}: {_start(text)}"
                    ) from None
        self._tokenizer.no_padding()
        encodings: list[Any] = self._tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        for encoding in encodings:
            if encoding.ids and max(encoding.ids) >= self._vocab_size:
                raise BundleError(
                    f"the tokenizer gives token {max(encoding.ids)} to a model that knows {self._vocab_size}; "
                    "export the model again"
                )
        return encodings


def _row(encoding: Any) -> Row:
    return Row(
        encoding.ids,
        encoding.type_ids,
        encoding.offsets,
        encoding.sequence_ids,
        encoding.word_ids,
        bool(encoding.overflowing),
    )


def _start(text: str | Pair) -> str:
    first = text if isinstance(text, str) else " / ".join(text)
    return repr(first[:60])
