"""Groups tokens into words with their punctuation.

Source: openai/whisper's ``split_to_word_tokens`` and ``merge_punctuations``.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace

# Languages written without spaces between words: every character counts as a word.
_UNSPACED = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
_OPENING = frozenset("\"'“¿([{-")
_CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
_ENDINGS = frozenset(".。!！?？")
# The longest word at the end of a sentence, in median word lengths.
_LONGEST = 2
# The shortest pause before a segment, in median word lengths.
_PAUSE = 4
# The largest plausible median of word lengths, in seconds.
_USUAL = 0.7
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class TimedWord:
    """A word.

    Attributes:
        text: with the space before it.
        tokens: its ids, including those of merged punctuation.
        start: in seconds.
        end: the same.
        probabilities: of its own tokens.
    """

    text: str
    tokens: list[int]
    start: float = 0.0
    end: float = 0.0
    probabilities: list[float] = field(default_factory=list)


def split_words(tokens: Sequence[int], decode: Decode, language: str | None) -> list[tuple[str, list[int]]]:
    """Split tokens into words, in order.

    Args:
        tokens: of text.
        decode: makes text of tokens.
        language: its code; some languages put no spaces between words.

    Returns:
        each word with its tokens.
    """
    pieces = _characters(tokens, decode)
    if language in _UNSPACED:
        return pieces
    words: list[tuple[str, list[int]]] = []
    for text, ids in pieces:
        if not words or text.startswith(" ") or _all_in(text.strip(), string.punctuation):
            words.append((text, ids))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + ids)
    return words


def _characters(tokens: Sequence[int], decode: Decode) -> list[tuple[str, list[int]]]:
    """Split tokens into the smallest groups that decode to whole characters."""
    whole = decode(tokens)
    pieces: list[tuple[str, list[int]]] = []
    current: list[int] = []
    offset = 0
    for token in tokens:
        current.append(token)
        text = decode(current)
        broken = text.find(_REPLACEMENT)
        # Incomplete, unless the text itself contains that character.
        if broken < 0 or whole[offset + broken : offset + broken + 1] == _REPLACEMENT:
            pieces.append((text, current))
            offset += len(text)
            current = []
    return [*pieces, (decode(current), current)] if current else pieces


def shorten(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Return words, those beside the end of a sentence shortened: the pause there is not part of them."""
    longest = _LONGEST * usual_length(words)
    shortened = list(words)
    for index in range(1, len(shortened)):
        word = shortened[index]
        if word.end - word.start <= longest:
            continue
        if _all_in(word.text.strip(), _ENDINGS):
            shortened[index] = replace(word, end=word.start + longest)
        elif _all_in(shortened[index - 1].text.strip(), _ENDINGS):
            shortened[index] = replace(word, start=word.end - longest)
    return shortened


def shorten_first(words: Sequence[TimedWord], usual: float, before: float) -> list[TimedWord]:
    """Return words, the first ones after a pause shortened: alignment begins with the audio, not with speech.

    Args:
        words: of a segment, timed.
        usual: from `usual_length`.
        before: the end of the previous word, in seconds.
    """
    longest, shortened = _LONGEST * usual, list(words)
    if not shortened or shortened[0].end - before <= _PAUSE * usual:
        return shortened
    first, second = shortened[0], shortened[1] if len(shortened) > 1 else None
    if first.end - first.start <= longest and (second is None or second.end - first.start <= 2 * longest):
        return shortened
    if second is not None and second.end - second.start > longest:
        border = max(second.end / 2, second.end - longest)
        first, shortened[1] = replace(first, end=border), replace(second, start=border)
    shortened[0] = replace(first, start=max(0.0, first.end - longest))
    return shortened


def usual_length(words: Sequence[TimedWord]) -> float:
    """Return the median length of words in seconds, at most the largest plausible one; 0 without words."""
    lengths = sorted(word.end - word.start for word in words if word.end > word.start)
    if not lengths:
        return 0.0
    half = len(lengths) // 2
    return min(_USUAL, lengths[half] if len(lengths) % 2 else (lengths[half - 1] + lengths[half]) / 2)


def merge_punctuation(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Merge punctuation into the word it belongs to, which keeps its own times and probabilities."""
    merged: list[TimedWord] = []
    opening: list[TimedWord] = []
    for word in words:
        if word.text.startswith(" ") and _all_in(word.text.strip(), _OPENING):
            opening.append(word)
        elif merged and not opening and _all_in(word.text, _CLOSING) and not merged[-1].text.endswith(" "):
            merged[-1] = _spelled(merged[-1], [merged[-1], word])
        else:
            merged.append(_spelled(word, [*opening, word]))
            opening = []
    return [*merged, *opening]


def _spelled(word: TimedWord, parts: Sequence[TimedWord]) -> TimedWord:
    text = "".join(part.text for part in parts)
    return replace(word, text=text, tokens=[token for part in parts for token in part.tokens])


def _all_in(text: str, marks: Container[str]) -> bool:
    return bool(text) and all(character in marks for character in text)
