"""Splits the tokens of a window into segments with times, and finds where the next window starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# The time between two timestamp tokens, in seconds.
TIME_STEP = 0.02


@dataclass(frozen=True)
class WindowSegment:
    """A segment of a window.

    Attributes:
        start: in steps of 0.02 s from the beginning of the window.
        end: in the same steps.
        tokens: the segment's tokens, including its timestamps.
    """

    start: int
    end: int
    tokens: list[int]


@dataclass(frozen=True)
class WindowSplit:
    """A window's segments.

    Attributes:
        segments: the segments.
        transcribed: how much of the window is transcribed, in steps of 0.02 s; None if all of it is.
    """

    segments: list[WindowSegment]
    transcribed: int | None


def split_window(tokens: Sequence[int], first_time: int, steps: int, *, keep_rest: bool = False) -> WindowSplit:
    """Split the tokens of a window between pairs of timestamps: one segment ends there and the next begins.

    Source: openai/whisper's ``transcribe``. An unfinished last segment is left out, and the next window starts with it,
    so that no window ends in the middle of speech.

    Args:
        tokens: without the prompt and the end-of-text token.
        first_time: the token of 0.00 seconds.
        steps: the length of the window's audio, in steps of 0.02 s.
        keep_rest: keep an unfinished last segment.
    """
    is_time = [token >= first_time for token in tokens]
    cuts = [index + 1 for index, both in enumerate(pairwise(is_time)) if all(both)]
    ended = is_time[-2:] == [False, True]
    if not cuts:
        return WindowSplit([_whole(tokens, is_time, first_time, steps)], None)
    rest = keep_rest and not ended and len(tokens) > cuts[-1] + 1
    edges = [0, *cuts, *([len(tokens)] if ended or rest else [])]
    segments = [_segment(tokens[begin:end], first_time, steps) for begin, end in pairwise(edges)]
    return WindowSplit(segments, None if ended or rest else tokens[cuts[-1] - 1] - first_time)


def _segment(tokens: Sequence[int], first_time: int, steps: int) -> WindowSegment:
    end = tokens[-1] - first_time if tokens[-1] >= first_time else steps
    return WindowSegment(tokens[0] - first_time, end, list(tokens))


def _whole(tokens: Sequence[int], is_time: Sequence[bool], first_time: int, steps: int) -> WindowSegment:
    """The whole window as one segment, which ends at its last timestamp or at the window's end."""
    times = [token - first_time for token, time in zip(tokens, is_time, strict=True) if time]
    return WindowSegment(0, times[-1] if times and times[-1] else steps, list(tokens))
