"""A tokenizer whose token ids are Unicode code points, for models of characters (CANINE).

It implements the part of tokenizers.Tokenizer's interface that `RowReader` and the tasks use. A tokenizer.json of the
same meaning would need 1.1 million entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from triform.runtime.bundle.text_info import CodePointsInfo, Side

LAST_CODE_POINT = 0x10FFFF

_WORDS = re.compile(r"\s+|\S+")


@dataclass(frozen=True)
class CodePoints:
    """A tokenized text or pair of texts, like tokenizers.Encoding. See `Row` for the attributes.

    `overflowing` has the parts that were cut off, each as an encoding of its own.
    """

    ids: list[int] = field(default_factory=list)
    type_ids: list[int] = field(default_factory=list)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    word_ids: list[int | None] = field(default_factory=list)
    overflowing: list[CodePoints] = field(default_factory=list)

    def add(self, token: int, type_id: int) -> None:
        """Append a special token."""
        self.ids.append(token)
        self.type_ids.append(type_id)
        self.offsets.append((0, 0))
        self.sequence_ids.append(None)
        self.word_ids.append(None)

    def extend(self, part: _Part, type_id: int, sequence: int) -> None:
        """Append a part of a text."""
        self.ids.extend(part.ids)
        self.type_ids.extend([type_id] * len(part.ids))
        self.offsets.extend((place, place + 1) for place in part.places)
        self.sequence_ids.extend([sequence] * len(part.ids))
        self.word_ids.extend(part.words)


@dataclass(frozen=True)
class _Part:
    """A part of a text: for each character its code point, its place in the text, and the index of its word."""

    ids: list[int]
    places: list[int]
    words: list[int]

    def cut(self, start: int, end: int) -> _Part:
        return _Part(self.ids[start:end], self.places[start:end], self.words[start:end])

    def windows(self, size: int, stride: int) -> Iterator[_Part]:
        """Parts of `size` tokens up to the end, each of which shares `stride` tokens with the one before."""
        start = 0
        while True:
            yield self.cut(start, start + size)
            if start + size >= len(self.ids):
                return
            start += max(1, size - stride)


class CodePointTokenizer:
    """Encodes texts as code points, and decodes them.

    Its words are runs of characters without white space, and runs of white space.

    Attributes:
        model: None; it exists because tokenizers.Tokenizer has it.
    """

    model: None = None

    def __init__(self, info: CodePointsInfo) -> None:
        self._info = info
        self._special = frozenset(info.special)
        self._stripping = re.compile("|".join(re.escape(chr(code_point)) for code_point in info.strip_before))
        self._length: int | None = None
        self._stride = 0
        self._strategy = "longest_first"
        self._direction: Side = "right"

    def enable_truncation(
        self, max_length: int, stride: int = 0, strategy: str = "longest_first", direction: Side = "right"
    ) -> None:
        """Truncate texts from now on.

        Args:
            max_length: most tokens of an encoding, special tokens included.
            stride: tokens that an encoding in `overflowing` shares with the one before; not for ``longest_first``.
            strategy: which text of a pair is cut: ``only_first``, ``only_second``, or ``longest_first``, the longer one
                until both have the same length. A single text is always cut.
            direction: the end at which a text is cut; of ``only_first`` and ``only_second`` always the right one.
        """
        self._length, self._stride, self._strategy = max_length, stride, strategy
        self._direction = direction

    def no_truncation(self) -> None:
        """Do not truncate from now on."""
        self._length = None

    def no_padding(self) -> None:
        """Do nothing: this tokenizer never pads."""

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        """The number of special tokens around a text or a pair."""
        return 3 if is_pair else 2

    def encode(self, sequence: str, pair: str | None = None, *, add_special_tokens: bool = True) -> CodePoints:
        """Encode a text or a pair of texts."""
        first, second = self._read(sequence), None if pair is None else self._read(pair)
        pieces = [
            self._joined(start, other, add_special_tokens)
            for start, other in self._cut(first, second, add_special_tokens)
        ]
        pieces[0].overflowing.extend(pieces[1:])
        return pieces[0]

    def encode_batch(
        self, input: Sequence[str | tuple[str, str]], *, add_special_tokens: bool = True
    ) -> list[CodePoints]:
        """Encode each text or pair of texts."""
        return [
            self.encode(*((text,) if isinstance(text, str) else text), add_special_tokens=add_special_tokens)
            for text in input
        ]

    def token_to_id(self, token: str) -> int | None:
        """The code point of a character; None if `token` is not a single character."""
        return ord(token) if len(token) == 1 else None

    def id_to_token(self, id: int) -> str | None:
        """The character, or a name such as ``U+000A`` if it is not printable; None if there is no such code point."""
        if not 0 <= id <= LAST_CODE_POINT:
            return None
        return chr(id) if chr(id).isprintable() else f"U+{id:04X}"

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return "".join(chr(token) for token in ids if not (skip_special_tokens and token in self._special))

    def _read(self, text: str) -> _Part:
        """The characters of a text, without white space before the special tokens that strip it."""
        places = self._places(text) if self._info.strip_before else list(range(len(text)))
        words = [number for number, word in enumerate(_WORDS.findall(text)) for _ in word]
        return _Part([ord(text[place]) for place in places], places, [words[place] for place in places])

    def _places(self, text: str) -> list[int]:
        places: list[int] = []
        start = 0
        for match in self._stripping.finditer(text):
            kept = len(text[start : match.start()].rstrip())
            places.extend((*range(start, start + kept), match.start()))
            start = match.end()
        places.extend(range(start, len(text)))
        return places

    def _cut(self, first: _Part, second: _Part | None, special: bool) -> list[tuple[_Part, _Part | None]]:
        """The texts of each encoding: the one that fits first, then those in `overflowing`."""
        whole = len(first.ids) + (0 if second is None else len(second.ids))
        added = self.num_special_tokens_to_add(second is not None) if special else 0
        room = whole if self._length is None else max(0, self._length - added)
        if whole <= room:
            return [(first, second)]
        if self._direction == "left" and second is None:
            cut = len(first.ids) - room
            return [(first.cut(cut, whole), None), (first.cut(0, cut), None)]
        if second is None:
            return [(window, None) for window in first.windows(room, self._stride)]
        if self._strategy == "only_first":
            return [(window, second) for window in first.windows(room - len(second.ids), self._stride)]
        if self._strategy == "only_second":
            return [(first, window) for window in second.windows(room - len(first.ids), self._stride)]
        # Of two texts of the same length, the second is cut first, as in transformers.
        kept = min(len(first.ids), max(room - len(second.ids), (room + 1) // 2))
        if self._direction == "left":
            cuts = len(first.ids) - kept, len(second.ids) - (room - kept)
            tails = first.cut(cuts[0], len(first.ids)), second.cut(cuts[1], len(second.ids))
            return [tails, (first.cut(0, cuts[0]), second.cut(0, cuts[1]))]
        rest = (first.cut(kept, len(first.ids)), second.cut(room - kept, len(second.ids)))
        return [(first.cut(0, kept), second.cut(0, room - kept)), rest]

    def _joined(self, first: _Part, second: _Part | None, special: bool) -> CodePoints:
        made, info = CodePoints(), self._info
        if special:
            made.add(info.first, 0)
        made.extend(first, 0, 0)
        if special:
            made.add(info.separator, 0)
        if second is not None:
            made.extend(second, info.second_type, 1)
            if special:
                made.add(info.separator, info.second_type)
        return made
