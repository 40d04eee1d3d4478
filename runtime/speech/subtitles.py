"""Transcripts as files: text, JSON, SubRip (.srt) and WebVTT (.vtt).

Each writer takes segments as they come and yields the file piece by piece, so that a live transcription can be written
as it grows. Source for WebVTT: the W3C's "WebVTT: The Web Video Text Tracks Format"; SubRip has no specification.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator

from triform.runtime.errors import InputError
from triform.runtime.speech.transcript import Segment

# A cue that lasts no time would never be shown.
_SHORTEST = 1


def as_text(segments: Iterable[Segment]) -> Iterator[str]:
    """One line a segment; segments without text are left out."""
    for segment in segments:
        if text := _one_line(segment.text):
            yield f"{text}\n"


def as_json(segments: Iterable[Segment], name: str | None = None) -> Iterator[str]:
    """One JSON object: ``text``, the whole, ``language``, and ``segments`` with every field of theirs.

    ``language_probability`` is how sure a detected language is.

    Args:
        segments: from first to last.
        name: the recording's, for a first field ``file``; without that when None.
    """
    found = list(segments)
    document = {
        **({} if name is None else {"file": name}),
        "text": "".join(segment.text for segment in found).strip(),
        "language": found[0].language if found else None,
        "language_probability": found[0].language_probability if found else None,
        "segments": [dataclasses.asdict(segment) for segment in found],
    }
    yield json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def as_srt(segments: Iterable[Segment], max_line_width: int | None = None) -> Iterator[str]:
    """SubRip, one cue a segment.

    Args:
        segments: in any order; a cue never starts before the one before it ends.
        max_line_width: characters in a line, longer text being broken between words where possible; None for one line.

    Raises:
        InputError: `max_line_width` is not positive.
    """
    # SubRip cannot escape what separates its times.
    cues = _cues(segments, max_line_width, lambda text: text.replace("-->", "->"))
    for number, (start, end, text) in enumerate(cues, 1):
        yield f"{number}\n{srt_time(start)} --> {srt_time(end)}\n{text}\n\n"


def as_vtt(segments: Iterable[Segment], max_line_width: int | None = None) -> Iterator[str]:
    """WebVTT, one cue a segment. Arguments and errors as `as_srt`."""
    cues = _cues(segments, max_line_width, _escaped)
    yield "WEBVTT\n\n"
    for start, end, text in cues:
        yield f"{vtt_time(start)} --> {vtt_time(end)}\n{text}\n\n"


WRITERS: dict[str, Callable[..., Iterator[str]]] = {"text": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt}


def srt_time(milliseconds: int) -> str:
    """A time as SubRip writes it: 01:02:03,004."""
    return vtt_time(milliseconds).replace(".", ",")


def vtt_time(milliseconds: int) -> str:
    """A time as WebVTT writes it: 01:02:03.004."""
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
        # Broken before it is escaped: what is read counts, not what is written.
        lines = textwrap.wrap(text, width, break_on_hyphens=False) if width else [text]
        yield start, shown_until, "\n".join(map(escape, lines))


def _one_line(text: str) -> str:
    """Without line breaks: an empty line would end a cue."""
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
