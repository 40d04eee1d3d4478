"""Subtitle files, by their formats' rules."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triform.runtime.errors import InputError
from triform.runtime.speech.subtitles import WRITERS, as_json, as_srt, as_text, as_vtt, srt_time, vtt_time
from triform.runtime.speech.transcript import Segment, Word

SRT_TIME = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3})")
VTT_TIME = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})")


def segment(start, end, text, **more):
    return Segment(start, end, text, [1, 2], -0.25, 0.1, 1.5, 0.0, **more)


def milliseconds(pattern, text):
    hours, minutes, seconds, rest = map(int, pattern.fullmatch(text).groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def cues(written):
    """Start, end and lines of each cue of a SubRip file, as its rules say."""
    found = []
    for number, block in enumerate(written.removesuffix("\n\n").split("\n\n") if written else [], 1):
        count, times, *lines = block.split("\n")
        assert int(count) == number
        start, end = times.split(" --> ")
        found.append((milliseconds(SRT_TIME, start), milliseconds(SRT_TIME, end), lines))
    return found


@given(st.integers(0, 400 * 3_600_000))
def test_times_can_be_read_back(time):
    assert milliseconds(SRT_TIME, srt_time(time)) == time
    assert milliseconds(VTT_TIME, vtt_time(time)) == time


def test_times_by_hand():
    assert srt_time(0) == "00:00:00,000"
    assert srt_time(((1 * 60 + 2) * 60 + 3) * 1000 + 4) == "01:02:03,004"
    assert vtt_time(59 * 60_000 + 59_999) == "00:59:59.999"
    assert vtt_time(100 * 3_600_000) == "100:00:00.000"


def test_srt_by_hand():
    written = "".join(as_srt([segment(0, 1.5, " Hello."), segment(3661.25, 3662.0004, " A < B & C --> D")]))
    assert written == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,250 --> 01:01:02,000\nA < B & C -> D\n\n"
    )


def test_vtt_by_hand():
    written = "".join(as_vtt([segment(0, 1.5, " Hello."), segment(3661.25, 3662, " A < B & C --> D")]))
    assert written == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n\n"
        "01:01:01.250 --> 01:01:02.000\nA &lt; B &amp; C --&gt; D\n\n"
    )


def test_text_is_a_line_a_segment():
    segments = [segment(0, 1, " One\nand a half."), segment(1, 2, "  "), segment(2, 3, " Two.")]
    assert list(as_text(segments)) == ["One and a half.\n", "Two.\n"]


def test_json_has_everything():
    word = Word(0.5, 0.75, " Hé", 0.875)
    (written,) = as_json([segment(0.5, 1, " Hé", words=[word]), segment(1, 2, " là.")])
    document = json.loads(written)
    assert document["text"] == "Hé là."
    assert document["segments"][0] == {
        "start": 0.5,
        "end": 1,
        "text": " Hé",
        "tokens": [1, 2],
        "avg_logprob": -0.25,
        "no_speech_prob": 0.1,
        "compression_ratio": 1.5,
        "temperature": 0.0,
        "words": [{"start": 0.5, "end": 0.75, "text": " Hé", "probability": 0.875}],
        "language": None,
        "language_probability": None,
    }
    assert (document["language"], document["language_probability"]) == (None, None)
    assert "é" in written


def test_the_language_is_that_of_the_recording():
    segments = [segment(0, 1, " Ja.", language="de", language_probability=0.75), segment(1, 2, " Nein.")]
    document = json.loads("".join(as_json(segments, "a.wav")))
    assert (document["file"], document["language"], document["language_probability"]) == ("a.wav", "de", 0.75)


def test_nothing_was_said():
    assert [list(WRITERS[name]([])) for name in ("text", "srt", "vtt")] == [[], [], ["WEBVTT\n\n"]]
    assert json.loads("".join(WRITERS["json"]([]))) == {
        "text": "", "language": None, "language_probability": None, "segments": []
    }  # fmt: skip


@pytest.mark.parametrize("writer", [as_srt, as_vtt])
def test_long_lines_are_broken(writer):
    text = " The quick brown fox jumps over the well-kept & lazy dog"
    (*_, written) = writer([segment(0, 1, text)], max_line_width=20)
    lines = written.strip().split("\n")[1 if writer is as_vtt else 2 :]
    and_sign = "&amp;" if writer is as_vtt else "&"
    assert lines == ["The quick brown fox", "jumps over the", f"well-kept {and_sign} lazy dog"]


def test_text_without_spaces_is_broken_too():
    ((_, _, lines),) = cues("".join(as_srt([segment(0, 1, "あ" * 25)], max_line_width=10)))
    assert [len(line) for line in lines] == [10, 10, 5]
    ((_, _, lines),) = cues("".join(as_srt([segment(0, 1, "あい")], max_line_width=1)))
    assert lines == ["あ", "い"]


@pytest.mark.parametrize("width", [0, -1])
@pytest.mark.parametrize("writer", [as_srt, as_vtt])
def test_a_width_that_nothing_fits_is_one_line(writer, width):
    with pytest.raises(InputError, match=f"must be 1 or more, not {width}"):
        list(writer([], max_line_width=width))


@given(
    st.lists(st.tuples(st.floats(-5, 20_000), st.floats(-5, 20_000), st.text(max_size=60)), max_size=8),
    st.one_of(st.none(), st.integers(1, 50)),
)
def test_cues_are_never_negative_empty_or_overlapping(parts, width):
    segments = [segment(*part) for part in parts]
    found = cues("".join(as_srt(segments, width)))
    assert len(found) == sum(bool(text.split()) for _, _, text in parts)
    last = 0
    for start, end, lines in found:
        assert last <= start < end
        assert all(line.strip() and (width is None or len(line) <= width) for line in lines)
        last = end
