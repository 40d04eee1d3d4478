"""The records of a transcript: segments and words, with their times."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """One word.

    Attributes:
        start: in seconds from the recording's beginning.
        end: the same.
        text: with the space before it, in languages that use spaces.
        probability: the mean of its tokens' probabilities.
    """

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """The text spoken between two times, usually a sentence or a part of one.

    Attributes:
        start: in seconds from the recording's beginning.
        end: the same.
        text: with the space before it, in languages that use spaces.
        tokens: its ids, including timestamps.
        avg_logprob: mean log-probability of the window's tokens, in nats.
        no_speech_prob: the probability that nobody speaks; None if the model has no token for that.
        compression_ratio: size of the window's text divided by its size compressed by zlib. Above 2.4 it is repetitive.
        temperature: at which it was sampled; 0 when greedy.
        words: empty without word timestamps.
        language: its code, requested or detected; None if the model has only one.
        language_probability: of a detected language, among the model's languages; None if it was not detected.
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
