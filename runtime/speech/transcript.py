"""What was said, and when: the records that transcribing gives."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """One word.

    Attributes:
        start: in seconds from the recording's beginning.
        end: the same.
        text: with the space before it, where the language puts one.
        probability: the mean of its tokens'.
    """

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """What was said between two times, usually a sentence or a part of one.

    Attributes:
        start: in seconds from the recording's beginning.
        end: the same.
        text: what was said, with the space before it, where the language puts one.
        tokens: its ids, with those of times.
        avg_logprob: mean logarithm of the tokens' probabilities, in nats.
        no_speech_prob: the probability that nobody speaks; None where the model has no token for that.
        compression_ratio: bytes of the text for each byte of it compressed by zlib. Above 2.4 it repeats itself.
        temperature: of the sampling that gave it; 0 when it was greedy.
        words: empty when times of words were not asked for.
        language: its code, asked for or detected; None where the model has no choice.
        language_probability: of a language that was detected, among the model's languages; None of one that was not.
    """

    start: float
    end: float
    text: str
    tokens: list[int]
    avg_logprob: float
    no_speech_prob: float | None
    compression_ratio: float
    temperature: float
    words: list[Word] = field(default_factory=list)
    language: str | None = None
    language_probability: float | None = None
