"""Groups framed tokens into words and segments.

Source for words: transformers' Wav2Vec2CTCTokenizer, ``output_word_offsets``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from triform.runtime.speech.ctc.decoding import FramedToken
from triform.runtime.speech.fallback import compression_ratio
from triform.runtime.speech.transcript import Segment, Word
from triform.runtime.text.tokenizer import Tokenizer

# In seconds. A segment ends at such a pause between two words, and gets no longer than this, so that it can be shown as
# a subtitle; so does a word, in languages that write no spaces.
_PAUSE, _LONGEST = 1.0, 7.0


class Pieces:
    """The text of each token within a text; spaces belong to it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        # Decoders treat the first token of a text differently, so each is decoded behind another.
        texts = ((token, tokenizer.decode([token], False)) for token in range(vocab_size))
        self._first, before = next(((token, text) for token, text in texts if text.strip()), (0, ""))
        self._cut = len(before)
        self._known: dict[int, str] = {}

    def of(self, token: int) -> str:
        """The text of a token that others precede."""
        if token not in self._known:
            self._known[token] = self._tokenizer.decode([self._first, token], False)[self._cut :]
        return self._known[token]

    def joined(self, tokens: list[int]) -> str:
        """The text of tokens that others precede."""
        return self._tokenizer.decode([self._first, *tokens], False)[self._cut :]


@dataclass
class _Unit:
    """A word in the making, and the spaces before it.

    Attributes:
        tokens: of the word and of the spaces.
        letters: those of the word alone.
    """

    tokens: list[FramedToken] = field(default_factory=list)
    letters: list[FramedToken] = field(default_factory=list)

    @property
    def start(self) -> int:
        return self.letters[0].start

    @property
    def end(self) -> int:
        return self.letters[-1].end


def segments(
    tokens: Iterable[FramedToken], pieces: Pieces, frame: float, offset: float, *, words: bool
) -> Iterator[Segment]:
    """Yield segments as their tokens come.

    Args:
        tokens: in order.
        pieces: their texts.
        frame: seconds from one frame to the next.
        offset: seconds from the recording's beginning to the first frame.
        words: whether segments have words with times.
    """
    waiting: list[_Unit] = []
    for unit in _units(tokens, pieces, frame):
        if waiting and _ends(waiting, unit, frame):
            yield _segment(waiting, pieces, frame, offset, words=words)
            waiting = []
        waiting.append(unit)
    if waiting:
        yield _segment(waiting, pieces, frame, offset, words=words)


def _units(tokens: Iterable[FramedToken], pieces: Pieces, frame: float) -> Iterator[_Unit]:
    unit, closed = _Unit(), False
    for token in tokens:
        piece = pieces.of(token.token)
        letters = bool(piece.strip())
        starts = closed or piece[:1].isspace() or _too_long(unit, token, frame)
        if unit.letters and starts:
            yield unit
            unit = _Unit()
        unit.tokens.append(token)
        if letters:
            unit.letters.append(token)
            closed = piece[-1:].isspace()
    if unit.letters:
        yield unit


def _too_long(unit: _Unit, token: FramedToken, frame: float) -> bool:
    return bool(unit.letters) and (token.end - unit.start) * frame > _LONGEST


def _ends(waiting: list[_Unit], unit: _Unit, frame: float) -> bool:
    pause = (unit.start - waiting[-1].end) * frame
    return pause >= _PAUSE or (unit.end - waiting[0].start) * frame > _LONGEST


def _segment(units: list[_Unit], pieces: Pieces, frame: float, offset: float, *, words: bool) -> Segment:
    tokens = [token for unit in units for token in unit.tokens]
    ids = [token.token for token in tokens]
    text = pieces.joined(ids)
    mean = math.fsum(token.logprob for token in tokens) / len(tokens)
    return Segment(
        start=_time(units[0].start, frame, offset),
        end=_time(units[-1].end, frame, offset),
        text=text,
        tokens=ids,
        avg_logprob=mean,
        no_speech_prob=None,
        compression_ratio=compression_ratio(text),
        temperature=0.0,
        words=[_word(unit, pieces, frame, offset) for unit in units] if words else [],
    )


def _word(unit: _Unit, pieces: Pieces, frame: float, offset: float) -> Word:
    text = pieces.joined([token.token for token in unit.tokens])
    probability = math.fsum(math.exp(token.logprob) for token in unit.letters) / len(unit.letters)
    return Word(_time(unit.start, frame, offset), _time(unit.end, frame, offset), text, probability)


def _time(frames: int, frame: float, offset: float) -> float:
    return round(offset + frames * frame, 3)
