"""From the tokens of a window to segments with times, and to where the next window starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# What the tokens of time count in, in seconds.
TIME_STEP = 0.02


@dataclass(frozen=True)
class Stretch:
    """A segment of a window.

    Attributes:
        start: in steps of 0.02 s from the window's beginning.
        end: the same.
        tokens: those of its times included.
    """

    start: int
    end: int
    tokens: list[int]


@dataclass(frozen=True)
class Split:
    """What a window comes to.

    Attributes:
        stretches: its segments.
        heard: in steps, up to where the window is done; None when all of it is.
    """

    stretches: list[Stretch]
    heard: int | None


def split_window(tokens: Sequence[int], first_time: int, steps: int, *, keep_rest: bool = False) -> Split:
    """Cut what was said in a window where two times stand together: one segment ends there and the next begins.

    Source: openai/whisper's ``transcribe``. A segment that was begun but not ended is left out, and the next window
    starts with it, so that no window ends within what is said.

    Args:
        tokens: without prompt and end.
        first_time: the token of 0.00 seconds.
        steps: how long the window's sound is.
        keep_rest: keep what was begun but not ended: the sound goes on elsewhere, if at all.
    """
    is_time = [token >= first_time for token in tokens]
    cuts = [index + 1 for index, both in enumerate(pairwise(is_time)) if all(both)]
    ended = is_time[-2:] == [False, True]
    if not cuts:
        return Split([_whole(tokens, is_time, first_time, steps)], None)
    rest = keep_rest and not ended and len(tokens) > cuts[-1] + 1
    edges = [0, *cuts, *([len(tokens)] if ended or rest else [])]
    stretches = [_stretch(tokens[begin:end], first_time, steps) for begin, end in pairwise(edges)]
    return Split(stretches, None if ended or rest else tokens[cuts[-1] - 1] - first_time)


def _stretch(tokens: Sequence[int], first_time: int, steps: int) -> Stretch:
    end = tokens[-1] - first_time if tokens[-1] >= first_time else steps
    return Stretch(tokens[0] - first_time, end, list(tokens))


def _whole(tokens: Sequence[int], is_time: Sequence[bool], first_time: int, steps: int) -> Stretch:
    """All of a window as one segment: up to the last time in it, or to its end."""
    times = [token - first_time for token, time in zip(tokens, is_time, strict=True) if time]
    return Stretch(0, times[-1] if times and times[-1] else steps, list(tokens))
