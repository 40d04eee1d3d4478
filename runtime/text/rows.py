"""Texts as rows of token ids, cut to what a model can read."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from triform.runtime.errors import BundleError, InputError
from triform.runtime.text.unicode_check import invalid_at

Pair = tuple[str, str]

# Texts read at a time from a stream: enough to keep the tokenizer's threads busy.
_CHUNK = 256


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
        prompt_length: tokens at its start that have no part in the vector of the text, where a graph asks for that.
    """

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    words: list[int | None] = field(default_factory=list)
    truncated: bool = False
    prompt_length: int = 0


class RowReader:
    """A tokenizer that knows how much a model can read.

    Attributes:
        tokenizer: to look tokens up and to spell them.
        max_length: tokens of a row, special ones included.
        truncated: how many texts were cut so far.
    """

    def __init__(
        self, tokenizer: Any, max_length: int, vocab_size: int, *, strict: bool = False, min_length: int = 1
    ) -> None:
        """Keep a tokenizer.

        Args:
            tokenizer: tokenizers.Tokenizer, or one that can be used as one.
            max_length: see above.
            vocab_size: ids the model knows.
            strict: refuse a text that is too long, rather than cutting it.
            min_length: fewest tokens of a row that the model can read.
        """
        self.tokenizer = tokenizer
        self._strict = strict
        self._min_length = min_length
        self._vocab_size = vocab_size
        self.max_length = max_length
        self.truncated = 0
        # The tokenizer is told how to cut before it gets texts; no other thread may come in between.
        self._lock = threading.Lock()

    def shorter(self, max_length: int) -> RowReader:
        """A reader of rows of at most `max_length` tokens, which refuses no text for its length.

        It uses the same tokenizer, in turns with this reader.
        """
        shorter = RowReader(self.tokenizer, min(max_length, self.max_length), self._vocab_size)
        shorter._lock = self._lock
        return shorter

    def stream(self, texts: Iterable[str | Pair]) -> Iterator[Row]:
        """What `read` gives for any number of texts, in bounded memory. Errors as `read`."""
        source = iter(texts)
        first = 1
        while chunk := list(islice(source, _CHUNK)):
            yield from self.read(chunk, first=first)
            first += len(chunk)

    def read(self, texts: Sequence[str | Pair], *, add_special_tokens: bool = True, first: int = 1) -> list[Row]:
        """One row a text or pair of texts; what is too long is cut at its end, the longer text of a pair first.

        Args:
            texts: texts, or pairs of texts.
            add_special_tokens: whether what the model expects around a text is put there.
            first: the number of the first text, for errors.

        Raises:
            InputError: a text is not valid Unicode, too short for the model, or too long for a strict reader.
        """
        with self._lock:
            self.tokenizer.enable_truncation(self.max_length)
            encodings = self._encode(texts, add_special_tokens, first)
        rows = [_row(encoding) for encoding in encodings]
        for index, row in enumerate(rows):
            self._check_length(row, texts[index], first + index)
            if row.truncated and self._strict:
                raise InputError(
                    f"text {first + index} is longer than the model's {self.max_length} tokens: {_start(texts[index])}"
                )
        self.truncated += sum(row.truncated for row in rows)
        return rows

    def read_windows(self, text: str | Pair, *, stride: int, number: int = 1) -> list[Row]:
        """One text, or a pair whose second text is long, in overlapping windows that cover all of it.

        Args:
            text: the text, or the pair whose second text is cut; the first is repeated in each window.
            stride: tokens that neighbouring windows share.
            number: of the text, for errors.

        Raises:
            InputError: the text is not valid Unicode, a window is too short for the model, or the first of a pair
                leaves no room for the second.
        """
        first, direction = (None, "only_first") if isinstance(text, str) else (text[0], "only_second")
        # Asked for before: tokenizers prints a traceback of its own, and panics, where the stride leaves no room.
        if stride >= self.room(first):
            raise InputError(f"windows of {self.max_length} tokens that share {stride} leave no room: {_start(text)}")
        with self._lock:
            self.tokenizer.enable_truncation(self.max_length, stride=stride, strategy=direction)
            encoding = self._encode([text], True, number)[0]
        rows = [_row(part) for part in (encoding, *encoding.overflowing)]
        for row in rows:
            self._check_length(row, text, number)
        return rows

    def room(self, first: str | None = None) -> int:
        """How many tokens of a text fit into a row.

        Args:
            first: the first text of a pair whose second is asked about; None for a text alone.

        Raises:
            InputError: `first` is not valid Unicode.
        """
        special: int = self.tokenizer.num_special_tokens_to_add(first is not None)
        if first is None:
            return self.max_length - special
        with self._lock:
            self.tokenizer.no_truncation()
            return self.max_length - special - len(self._encode([first], False, 1)[0].ids)

    def length(self, text: str) -> int:
        """Tokens of a text that is not cut, special ones included.

        Raises:
            InputError: the text is not valid Unicode.
        """
        with self._lock:
            self.tokenizer.no_truncation()
            return len(self._encode([text], True, 1)[0].ids)

    def _check_length(self, row: Row, text: str | Pair, number: int) -> None:
        # A text without any token never reaches the model.
        if 0 < len(row.ids) < self._min_length:
            raise InputError(
                f"text {number} gives a row of {len(row.ids)} tokens, fewer than the {self._min_length} that the model "
                f"needs: {_start(text)}"
            )

    def _encode(self, texts: Sequence[str | Pair], add_special_tokens: bool, first: int) -> list[Any]:
        for number, text in enumerate(texts, first):
            for part in (text,) if isinstance(text, str) else text:
                place = invalid_at(part)
                if place is not None:
                    raise InputError(f"text {number} is not valid Unicode at character {place}: {_start(text)}")
        self.tokenizer.no_padding()
        encodings: list[Any] = self.tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
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
