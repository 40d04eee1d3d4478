"""Encodes texts as rows of token ids that are no longer than the model's context."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.text_info import BoxesInfo, Side
from triform.runtime.errors import BundleError, InputError
from triform.runtime.text.checks import invalid_at
from triform.runtime.text.pages import Page, Text, parts_of, scaled, text_of

# Of a question and a page, for instance: the first is always a text.
Pair = tuple[str, Text]
RowIds = NDArray[np.int64]

# How to give a model boxes.
NEEDS_BOXES = (
    "this model reads where each word stands on its page; give a triform.Page, or in a .jsonl file "
    '{"words": ["Total", ...], "boxes": [[left, top, right, bottom], ...]} without a "text"'
)
# Texts of a stream to tokenize at a time: enough to keep the tokenizer's threads busy.
_CHUNK = 256


@dataclass(frozen=True)
class TokenRow:
    """One tokenized input of an encoder.

    Attributes:
        ids: token ids.
        type_ids: for each token, its token type id: 0 in the first text, usually 1 in the second.
        offsets: for each token, the start and end of its text, in characters of the text it comes from; (0, 0) for
            special tokens.
        sequence_ids: for each token, 0 or 1 for the text it comes from; None for special tokens.
        words: for each token, the index of its word in the text or page it comes from; None for special tokens.
        truncated: whether the text was cut.
        prompt_length: number of tokens at the start that pooling leaves out, for graphs with such an input.
        boxes: (tokens, 4), of a page as a graph takes them; None for texts.
    """

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    words: list[int | None] = field(default_factory=list)
    truncated: bool = False
    prompt_length: int = 0
    boxes: NDArray[Any] | None = None


@dataclass(frozen=True)
class TokenBatch:
    """Many texts as token ids, one text after the other; a `TokenRow` of each costs more than a GPU needs to read it.

    Attributes:
        ids: int64 (tokens,), of all texts.
        type_ids: int64 (tokens,), the token type id of each.
        lengths: int64 (texts,), the number of tokens of each text.
        boxes: (tokens, 4), of pages; None for texts.
    """

    ids: RowIds
    type_ids: RowIds
    lengths: RowIds
    boxes: NDArray[Any] | None = None

    @cached_property
    def starts(self) -> RowIds:
        """int64 (texts,), where each text begins in `ids`."""
        return np.cumsum(self.lengths) - self.lengths

    def padded(self, texts: RowIds, pad: int) -> dict[str, NDArray[Any]]:
        """Some of the texts as a graph's inputs, each int64 (texts, longest); of pages ``bbox`` too.

        Args:
            texts: their indices.
            pad: id of the padding token.
        """
        lengths = self.lengths[texts]
        places = np.arange(lengths.max(initial=0))
        mask = places < lengths[:, None]
        sources = (self.starts[texts][:, None] + places)[mask]
        ids, type_ids = np.full(mask.shape, pad, np.int64), np.zeros(mask.shape, np.int64)
        ids[mask], type_ids[mask] = self.ids[sources], self.type_ids[sources]
        arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": type_ids}
        if self.boxes is not None:
            arrays["bbox"] = np.zeros((*mask.shape, 4), self.boxes.dtype)
            arrays["bbox"][mask] = self.boxes[sources]
        return arrays

    def at_least(self, length: int, pad: int) -> TokenBatch:
        """The same texts, which are no pages, those shorter than `length` with padding that is part of them."""
        if not length or not len(self.lengths) or self.lengths.min() >= length:
            return self
        arrays = self.padded(np.arange(len(self.lengths)), pad)
        longest = arrays["input_ids"].shape[1]
        lengths = np.maximum(self.lengths, length)
        kept = np.arange(max(longest, length)) < lengths[:, None]
        wider = [(0, 0), (0, max(0, length - longest))]
        ids = np.pad(arrays["input_ids"], wider, constant_values=pad)[kept]
        return TokenBatch(ids, np.pad(arrays["token_type_ids"], wider)[kept], lengths)


def token_batch(ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> TokenBatch:
    """Put texts together.

    Args:
        ids: token ids of each text.
        type_ids: for each token its token type id.
    """
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    total = int(lengths.sum())
    return TokenBatch(_joined(ids, total), _joined(type_ids, total), lengths)


def _joined(rows: Sequence[Sequence[int]], total: int) -> RowIds:
    return np.fromiter(chain.from_iterable(rows), np.int64, total)


class RowReader:
    """Tokenizes texts up to a model's maximum length. Thread-safe.

    Attributes:
        tokenizer: the tokenizer, to look up tokens and decode them.
        max_length: most tokens of a row, special tokens included.
        boxes: how the model reads where words stand; None for a model that reads texts alone.
        truncated: number of texts cut so far.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        vocab_size: int,
        *,
        strict: bool = False,
        min_length: int = 1,
        boxes: BoxesInfo | None = None,
        truncation_side: Side = "right",
    ) -> None:
        """Make a reader.

        Args:
            tokenizer: tokenizers.Tokenizer, or an object with the same interface.
            max_length: see the attribute.
            vocab_size: number of token ids that the model has.
            strict: whether to refuse a text that is too long, rather than cut it.
            min_length: fewest tokens of a row that the model can read.
            boxes: see the attribute.
            truncation_side: where `read` and `read_batch` cut a text.
        """
        self.tokenizer = tokenizer
        self._strict = strict
        self._side = truncation_side
        self._min_length = min_length
        self._vocab_size = vocab_size
        self.max_length = max_length
        self.boxes = boxes
        self.truncated = 0
        # Truncation is a setting of the tokenizer, so that another thread must not change it before texts are encoded.
        self._lock = threading.Lock()

    def shorter(self, max_length: int) -> RowReader:
        """A reader with the same tokenizer and lock, for rows of at most `max_length` tokens; it is never strict."""
        shorter = RowReader(self.tokenizer, min(max_length, self.max_length), self._vocab_size, boxes=self.boxes)
        shorter._lock = self._lock
        return shorter

    def stream(self, texts: Iterable[Text | Pair]) -> Iterator[TokenRow]:
        """The rows of any number of texts, in bounded memory. Errors as `read`."""
        source = iter(texts)
        first = 1
        while chunk := list(islice(source, _CHUNK)):
            yield from self.read(chunk, first=first)
            first += len(chunk)

    def read(self, texts: Sequence[Text | Pair], *, first: int = 1) -> list[TokenRow]:
        """Encode texts, a row for each text or pair. A long text is cut; of a pair, the longer one first.

        Args:
            texts: texts or pages, or pairs of a text and a text or page.
            first: the number of the first text, for errors.

        Raises:
            InputError: a text is not valid Unicode, too short for the model, or too long for a strict reader; the model
                needs a page and gets a text, or the other way around.
            BundleError: a token id is outside the model's vocabulary.
        """
        self._check_pages(texts, first)
        with self._lock:
            self.tokenizer.enable_truncation(self.max_length, direction=self._side)
            encodings = self._encode([_plain(text) for text in texts], first)
        rows = [row for encoding, text in zip(encodings, texts, strict=True) for row in self._rows([encoding], text)]
        for index, row in enumerate(rows):
            self._check_length(len(row.ids), texts[index], first + index)
            if row.truncated:
                self._note_truncated(texts[index], first + index)
        return rows

    def pieces(self, text: str) -> list[int]:
        """The token ids of a text alone, without special tokens, as many as a row may have. Errors as `read`."""
        with self._lock:
            self.tokenizer.enable_truncation(self.max_length)
            ids: list[int] = self._encode([text], 1, add_special_tokens=False)[0].ids
        return ids

    def read_batch(self, texts: Sequence[Text], *, first: int = 1) -> TokenBatch:
        """The token ids of texts, without what tells where each token comes from. Arguments and errors as `read`."""
        if self.boxes is not None:
            rows = self.read(texts, first=first)
            batch = token_batch([row.ids for row in rows], [row.type_ids for row in rows])
            boxes = [np.empty((0, 4), np.int64 if self.boxes.whole else np.float32)]
            return replace(batch, boxes=np.concatenate([*boxes, *(row.boxes for row in rows if row.boxes is not None)]))
        self._check_pages(texts, first)
        return self._read_texts([text_of(text) for text in texts], first)

    def _read_texts(self, texts: list[str], first: int) -> TokenBatch:
        _check_unicode(texts, first)
        with self._lock:
            self.tokenizer.enable_truncation(self.max_length, direction=self._side)
            self.tokenizer.no_padding()
            # Not every tokenizer has the faster way.
            encode = getattr(self.tokenizer, "encode_batch_fast", self.tokenizer.encode_batch)
            encodings = encode(texts, add_special_tokens=True)
        batch = token_batch([encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings])
        if batch.ids.max(initial=0) >= self._vocab_size:
            raise self._unknown_id(int(batch.ids.max()))
        for index in np.flatnonzero((batch.lengths > 0) & (batch.lengths < self._min_length)).tolist():
            self._check_length(int(batch.lengths[index]), texts[index], first + index)
        # Only texts that fill a row can have been cut.
        for index in np.flatnonzero(batch.lengths >= self.max_length).tolist():
            if encodings[index].overflowing:
                self._note_truncated(texts[index], first + index)
        return batch

    def read_windows(
        self, text: Text | Pair, *, stride: int, number: int = 1, split_first: bool = False
    ) -> list[TokenRow]:
        """Encode a long text, or a pair with a long second text, as overlapping windows that cover all of it.

        Args:
            text: the text or page, or a pair; each window has all of one text and a part of the other.
            stride: number of tokens that neighboring windows share.
            number: of the text, for errors.
            split_first: of a pair, whether the first text is the long one.

        Raises:
            InputError: the text is not valid Unicode, a window is too short for the model, or the whole text of a pair
                leaves no room for the other; the model needs a page and gets a text, or the other way around.
            BundleError: a token id is outside the model's vocabulary.
        """
        self._check_pages([text], number)
        strategy = "only_first" if split_first or isinstance(text, str | Page) else "only_second"
        whole = None if isinstance(text, str | Page) else text_of(text[split_first])
        # Checked here because tokenizers panics, and prints a traceback, if the stride leaves no room.
        if stride >= self.room(whole):
            raise InputError(
                f"windows of {self.max_length} tokens that share {stride} leave no room for the text: {_start(text)}"
            )
        with self._lock:
            self.tokenizer.enable_truncation(self.max_length, stride=stride, strategy=strategy)
            encoding = self._encode([_plain(text)], number)[0]
        rows = self._rows([encoding, *encoding.overflowing], text)
        for row in rows:
            self._check_length(len(row.ids), text, number)
        return rows

    def room(self, other: str | None = None) -> int:
        """The number of tokens that a row has for a text, alone or in a pair.

        Args:
            other: the whole text of the pair; None for a single text.

        Raises:
            InputError: `other` is not valid Unicode.
        """
        special: int = self.tokenizer.num_special_tokens_to_add(other is not None)
        if other is None:
            return self.max_length - special
        with self._lock:
            self.tokenizer.no_truncation()
            return self.max_length - special - len(self._encode([other], 1, add_special_tokens=False)[0].ids)

    def length(self, text: str) -> int:
        """The number of tokens of a whole text, special tokens included.

        Raises:
            InputError: the text is not valid Unicode.
        """
        with self._lock:
            self.tokenizer.no_truncation()
            return len(self._encode([text], 1)[0].ids)

    def _check_pages(self, texts: Sequence[Text | Pair], first: int) -> None:
        """Refuse texts without boxes, or boxes that the model does not read."""
        for number, text in enumerate(texts, first):
            parts = parts_of(text, number)
            if any(isinstance(part, Page) for part in parts[:-1]):
                raise InputError(
                    f"text {number} is a page that comes first of a pair: give the text first, then the page"
                )
            if self.boxes is None and isinstance(parts[-1], Page):
                raise InputError(f"text {number} has boxes, which this model does not read: give the text alone")
            if self.boxes is not None and not isinstance(parts[-1], Page):
                raise InputError(f"text {number} has no boxes: {NEEDS_BOXES}")

    def _rows(self, encodings: Sequence[Any], text: Text | Pair) -> list[TokenRow]:
        """The rows of a text's encodings."""
        rows = [_row(encoding) for encoding in encodings]
        place, page = (0, text) if isinstance(text, str | Page) else (1, text[1])
        if self.boxes is None or not isinstance(page, Page):
            return rows
        boxes = scaled(page, self.boxes)
        return [_on_page(row, place, page, boxes, self.boxes) for row in rows]

    def _check_length(self, length: int, text: Text | Pair, number: int) -> None:
        # A row without tokens never reaches the model.
        if 0 < length < self._min_length:
            raise InputError(
                f"text {number} has only {length} tokens, but the model needs at least {self._min_length}: "
                f"{_start(text)}"
            )

    def _note_truncated(self, text: Text | Pair, number: int) -> None:
        if self._strict:
            raise InputError(f"text {number} is longer than the model's {self.max_length} tokens: {_start(text)}")
        self.truncated += 1

    def _encode(
        self, texts: Sequence[str | tuple[str, str]], first: int, *, add_special_tokens: bool = True
    ) -> list[Any]:
        _check_unicode(texts, first)
        self.tokenizer.no_padding()
        encodings: list[Any] = self.tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        for encoding in encodings:
            if encoding.ids and max(encoding.ids) >= self._vocab_size:
                raise self._unknown_id(max(encoding.ids))
        return encodings

    def _unknown_id(self, token: int) -> BundleError:
        return BundleError(
            f"the tokenizer gives the token id {token}, but the model's vocabulary has {self._vocab_size} tokens; "
            "leave out of the text what it stands for"
        )


def _plain(text: Text | Pair) -> str | tuple[str, str]:
    """A text, or a pair of texts, with the words of a page in place of it."""
    return text_of(text) if isinstance(text, str | Page) else (text[0], text_of(text[1]))


def _on_page(row: TokenRow, place: int, page: Page, boxes: NDArray[Any], info: BoxesInfo) -> TokenRow:
    """A row with the word and the box of each token of a page, which is the text `place` of the row."""
    special = {each.token: each.box for each in info.special}
    words, own = list(row.words), np.zeros((len(row.ids), 4), boxes.dtype)
    for index, sequence in enumerate(row.sequence_ids):
        if sequence is None:
            own[index] = special.get(row.ids[index], 0)
        elif sequence == place:
            words[index] = word = page.word_at(*row.offsets[index])
            own[index] = boxes[word]
    return replace(row, words=words, boxes=own)


def _check_unicode(texts: Sequence[str | tuple[str, str]], first: int) -> None:
    for number, text in enumerate(texts, first):
        for part in (text,) if isinstance(text, str) else text:
            place = invalid_at(part)
            if place is not None:
                raise InputError(f"text {number} is not valid Unicode at character {place}: {_start(text)}")


def _row(encoding: Any) -> TokenRow:
    return TokenRow(
        encoding.ids,
        encoding.type_ids,
        encoding.offsets,
        encoding.sequence_ids,
        encoding.word_ids,
        bool(encoding.overflowing),
    )


def _start(text: Text | Pair) -> str:
    plain = _plain(text)
    first = plain if isinstance(plain, str) else " / ".join(plain)
    return repr(first[:60])
