"""Tokens as words: what belongs together, with its punctuation.

Source: openai/whisper's ``split_to_word_tokens`` and ``merge_punctuations``.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace

# Written without spaces between words: every character is shown by itself.
_UNSPACED = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
_OPENING = frozenset("\"'“¿([{-")
_CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
_ENDINGS = frozenset(".。!！?？")
# A word of a sentence's end lasts no longer than so many words usually do.
_LONGEST = 2
# So many usual words' time before a segment is a pause.
_PAUSE = 4
# What a word may usually last at most, in seconds.
_USUAL = 0.7
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class TimedWord:
    """A word.

    Attributes:
        text: with the space before it.
        tokens: its ids; none of what became part of a neighbor.
        start: in seconds.
        end: the same.
        probabilities: of its tokens.
    """

    text: str
    tokens: list[int]
    start: float = 0.0
    end: float = 0.0
    probabilities: list[float] = field(default_factory=list)


def split_words(tokens: Sequence[int], decode: Decode, language: str | None) -> list[tuple[str, list[int]]]:
    """Words and their tokens, all of them in their order.

    Args:
        tokens: of text.
        decode: from tokens to text.
        language: its code, for languages that put no spaces between words.
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
    """As few tokens as make whole characters, each with its text."""
    whole = decode(tokens)
    found: list[tuple[str, list[int]]] = []
    current: list[int] = []
    at = 0
    for token in tokens:
        current.append(token)
        text = decode(current)
        broken = text.find(_REPLACEMENT)
        # Unless the text itself has that character.
        if broken < 0 or whole[at + broken : at + broken + 1] == _REPLACEMENT:
            found.append((text, current))
            at += len(text)
            current = []
    return [*found, (decode(current), current)] if current else found


def shorten(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Words beside the end of a sentence last no longer than is usual: the pause there is not theirs."""
    longest = _LONGEST * usual_length(words)
    found = list(words)
    for index in range(1, len(found)):
        word = found[index]
        if word.end - word.start <= longest:
            continue
        if _all_in(word.text.strip(), _ENDINGS):
            found[index] = replace(word, end=word.start + longest)
        elif _all_in(found[index - 1].text.strip(), _ENDINGS):
            found[index] = replace(word, start=word.end - longest)
    return found


def shorten_first(words: Sequence[TimedWord], usual: float, before: float) -> list[TimedWord]:
    """The first words after a pause last no longer than is usual: alignment begins with the sound, not with speech.

    Args:
        words: of a segment, timed.
        usual: from `usual_length`.
        before: until when something was said before, in seconds.
    """
    longest, found = _LONGEST * usual, list(words)
    if not found or found[0].end - before <= _PAUSE * usual:
        return found
    first, second = found[0], found[1] if len(found) > 1 else None
    if first.end - first.start <= longest and (second is None or second.end - first.start <= 2 * longest):
        return found
    if second is not None and second.end - second.start > longest:
        border = max(second.end / 2, second.end - longest)
        first, found[1] = replace(first, end=border), replace(second, start=border)
    found[0] = replace(first, start=max(0.0, first.end - longest))
    return found


def usual_length(words: Sequence[TimedWord]) -> float:
    """The median of what words last, in seconds, but no more than is plausible."""
    lengths = sorted(word.end - word.start for word in words if word.end > word.start)
    if not lengths:
        return 0.0
    half = len(lengths) // 2
    return min(_USUAL, lengths[half] if len(lengths) % 2 else (lengths[half - 1] + lengths[half]) / 2)


def merge_punctuation(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Punctuation as part of the word it stands at, which keeps its own times and probabilities."""
    found: list[TimedWord] = []
    opening: list[TimedWord] = []
    for word in words:
        if word.text.startswith(" ") and _all_in(word.text.strip(), _OPENING):
            opening.append(word)
        elif found and not opening and _all_in(word.text, _CLOSING) and not found[-1].text.endswith(" "):
            found[-1] = _spelled(found[-1], [found[-1], word])
        else:
            found.append(_spelled(word, [*opening, word]))
            opening = []
    return [*found, *opening]


def _spelled(word: TimedWord, parts: Sequence[TimedWord]) -> TimedWord:
    text = "".join(part.text for part in parts)
    return replace(word, text=text, tokens=[token for part in parts for token in part.tokens])


def _all_in(text: str, marks: Container[str]) -> bool:
    return bool(text) and all(character in marks for character in text)
