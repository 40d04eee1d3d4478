"""Formats transcripts as text, JSON, SubRip (.srt) and WebVTT (.vtt).

Each writer takes segments lazily and yields the file piece by piece, so that a transcript can be written while it is
made. Source for WebVTT: the W3C's "WebVTT: The Web Video Text Tracks Format"; SubRip has no specification.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator

from triform.runtime.errors import InputError
from triform.runtime.speech.transcript import Segment

# In milliseconds. A cue of no duration would never be shown.
_SHORTEST = 1


def as_text(segments: Iterable[Segment]) -> Iterator[str]:
    """Yield one line per segment; segments without text are left out."""
    for segment in segments:
        if text := _one_line(segment.text):
            yield f"{text}\n"


def as_json(segments: Iterable[Segment], name: str | None = None) -> Iterator[str]:
    """Yield one JSON object: ``text`` (all of it), ``language``, and ``segments`` with all their fields.

    ``language_probability`` is that of a detected language.

    Args:
        segments: from first to last.
        name: of the recording, written as the first field ``file``; no such field when None.
    """
    collected = list(segments)
    document = {
        **({} if name is None else {"file": name}),
        "text": "".join(segment.text for segment in collected).strip(),
        "language": collected[0].language if collected else None,
        "language_probability": collected[0].language_probability if collected else None,
        "segments": [dataclasses.asdict(segment) for segment in collected],
    }
    yield json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def as_srt(segments: Iterable[Segment], max_line_width: int | None = None) -> Iterator[str]:
    """Yield SubRip, one cue per segment.

    Args:
        segments: in any order; a cue never starts before the previous one ends.
        max_line_width: characters in a line; longer text is wrapped, between words where possible. None for one line.

    Raises:
        InputError: `max_line_width` is not positive.
    """
    # SubRip cannot escape the arrow between its times.
    cues = _cues(segments, max_line_width, lambda text: text.replace("-->", "->"))
    for number, (start, end, text) in enumerate(cues, 1):
        yield f"{number}\n{srt_time(start)} --> {srt_time(end)}\n{text}\n\n"


def as_vtt(segments: Iterable[Segment], max_line_width: int | None = None) -> Iterator[str]:
    """Yield WebVTT, one cue per segment. Arguments and errors as in `as_srt`."""
    cues = _cues(segments, max_line_width, _escaped)
    yield "WEBVTT\n\n"
    for start, end, text in cues:
        yield f"{vtt_time(start)} --> {vtt_time(end)}\n{text}\n\n"


WRITERS: dict[str, Callable[..., Iterator[str]]] = {"text": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt}


def srt_time(milliseconds: int) -> str:
    """Format a time as SubRip does: 01:02:03,004."""
    return vtt_time(milliseconds).replace(".", ",")


def vtt_time(milliseconds: int) -> str:
    """Format a time as WebVTT does: 01:02:03.004."""
    minutes, rest = divmod(milliseconds, 60_000)
    seconds, thousandths = divmod(rest, 1000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{thousandths:03}"


def _cues(
    segments: Iterable[Segment], width: int | None, escape: Callable[[str], str]
) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, and lines of text: never empty, negative or overlapping."""
    if width is not None and width < 1:
        raise InputError(f"the maximum line width must be 1 or more, not {width}")
    return _cues_of(segments, width, escape)


def _cues_of(
    segments: Iterable[Segment], width: int | None, escape: Callable[[str], str]
) -> Iterator[tuple[int, int, str]]:
    shown_until = 0
    for segment in segments:
        text = _one_line(segment.text)
        if not text:
            continue
        start = max(shown_until, round(segment.start * 1000))
        shown_until = max(start + _SHORTEST, round(segment.end * 1000))
        # Wrapped before escaping: the width is that of the text as shown.
        lines = textwrap.wrap(text, width, break_on_hyphens=False) if width else [text]
        yield start, shown_until, "\n".join(map(escape, lines))


def _one_line(text: str) -> str:
    """Text without line breaks: an empty line would end a cue."""
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
