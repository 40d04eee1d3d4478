"""Sound in containers that libsndfile does not know, and formats that are left out."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from tests.helpers.signals import RATE, read_audio, tone
from triform.runtime.errors import InputError
from triform.runtime.media.audio import open_audio
from triform.runtime.media.sound_files import _Container, _is_sample_dump, _says_it_is_cut, _SndFile, open_sound

CONTAINERS = {
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "mkv": ("matroska", "flac"),
    "webm": ("webm", "libopus"),
    "avi": ("avi", "pcm_s16le"),
}
# What a lossy coder may change of a tone of amplitude 0.5, at most.
LOSSY = 0.06


def never(warning):
    raise AssertionError(warning)


def written(samples, container, codec, rate, layout="mono"):
    """The samples, float32 (channels, frames), by an encoder of FFmpeg's."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        coder = stream.codec_context
        coder.format = coder.codec.audio_formats[0]
        coder.open()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        size = coder.frame_size or 1024
        resampler = av.AudioResampler(format=coder.format, layout=layout, rate=rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(("container", "codec"), CONTAINERS.values(), ids=CONTAINERS)
def test_containers_give_the_tone_that_went_in(tmp_path, container, codec):
    rate = 48000
    path = tmp_path / "sound.bin"
    path.write_bytes(written(tone(2, 440, rate)[None], container, codec, rate))
    with open_audio(path, never) as audio:
        assert (audio.sampling_rate, audio.channels) == (rate, 1)
        blocks = np.concatenate(list(audio.blocks(RATE)))
        # A second reading begins at the beginning again.
        assert np.array_equal(np.concatenate(list(audio.blocks(RATE))), blocks)
    assert abs(len(blocks) / RATE - 2) < 0.1
    # Coders may shift a sound by their frame; the tone's phase tells by how much.
    middle = blocks[8000:24000].astype(np.float64)
    time_ = np.arange(len(middle)) / RATE
    wave = np.exp(-2j * np.pi * 440 * time_)
    amplitude = 2 * np.mean(middle * wave)
    rest = middle - np.real(amplitude * np.conj(wave))
    assert abs(abs(amplitude) - 0.5) < LOSSY
    assert np.sqrt(np.mean(rest**2)) < LOSSY


def test_channels_are_mixed_to_their_mean():
    sound = tone(1, 440, 48000)
    content = written(np.stack([sound, -sound]), "matroska", "flac", 48000, "stereo")
    with open_audio(content, never) as audio:
        assert audio.channels == 2
    assert np.abs(read_audio(content, RATE, never)).max() < 1e-3


def test_a_video_without_sound_is_refused():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    with pytest.raises(InputError, match="holds no audio"):
        open_audio(buffer.getvalue(), never)


def test_a_cut_file_is_read_as_far_as_it_goes():
    content = written(tone(4, 440, 48000)[None], "matroska", "flac", 48000)
    warnings = []
    samples = read_audio(content[: len(content) // 2], RATE, warnings.append)
    assert RATE < len(samples) < 3 * RATE
    assert len(warnings) == 1
    assert "cut off or damaged" in warnings[0]


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{}\n",
        b"ffconcat version 1.0\nfile {}\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        b"not a sound at all " * 100,
    ],
    ids=["playlist", "concat", "session", "text"],
)
def test_files_that_name_others_are_not_followed(tmp_path, content):
    (tmp_path / "secret.wav").write_bytes(written(tone(1)[None], "wav", "pcm_s16le", RATE))
    (tmp_path / "list.m3u8").write_bytes(content.replace(b"{}", str(tmp_path / "secret.wav").encode()))
    with pytest.raises(InputError, match="is not audio of a kind that can be read"):
        open_audio(tmp_path / "list.m3u8", never)


@pytest.mark.parametrize("place", [21, 22, 300])
def test_sds_files_end(place):
    """libsndfile reads damaged ones for ever, and prints to standard output about them, some while it opens them."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, tone(0.5), RATE, format="SDS", subtype="PCM_16")
    content = bytearray(buffer.getvalue())
    content[place] ^= 0xFF
    code = (
        "import sys\nfrom triform.runtime.errors import InputError\n"
        "from triform.runtime.media.audio import open_audio\n"
        "try: open_audio(sys.stdin.buffer.read(), print)\nexcept InputError as error: print(error, file=sys.stderr)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], input=bytes(content), capture_output=True, timeout=60)
    assert time.monotonic() - start < 60
    assert (done.stdout, done.returncode) == (b"", 0)
    assert b"is not audio of a kind that can be read" in done.stderr


@pytest.mark.parametrize(
    ("log", "cut"),
    [
        ("", False), ("data : 1000", False), ("data : 1000 (should be 990)", True),
        # Eight bytes may be padding.
        ("data : 1000 (should be 991)", True), ("data : 1000 (should be 992)", False),
        ("data : 1000 (should be 2000)", False),
        # What writes into a pipe stores this or more, since it does not know the size.
        (f"data : {0x7FFFF000} (should be 990)", False), (f"data : {0x7FFFEFFF} (should be 990)", True),
        ("RIFF : 998 (should be 996)\ndata : 1000 (should be 500)\nEnd", True),
        ("Stream 0 lacks an end-of-stream bit.", True),
    ],
)  # fmt: skip
def test_what_the_log_of_a_cut_file_says(log, cut):
    assert _says_it_is_cut(log) == cut


@pytest.mark.parametrize(
    ("start", "dump"),
    [
        (b"\xf0\x7e\x00\x01", True), (b"\xf0\x7e\x05\x01rest", True), (b"\xf0\x7e\x00\x02", False),
        (b"\xf0\x7f\x00\x01", False), (b"\xf1\x7e\x00\x01", False), (b"RIF\x01", False), (b"\xf0\x7e\x01", False),
        (b"\xf0\x7e\x00\x00\x01", False), (b"\x00\xf0\x7e\x00\x01", False), (b"", False),
    ],
)  # fmt: skip
def test_how_sample_dumps_begin(tmp_path, start, dump):
    """MIDI's message for all devices: F0 7E, the number of a channel, and 01 for the header of a dump."""
    content = io.BytesIO(start)
    assert _is_sample_dump(content) is dump
    assert content.tell() == 0
    (tmp_path / "sound").write_bytes(start)
    assert _is_sample_dump(tmp_path / "sound") is dump


def test_contents_are_read_from_their_beginning_wherever_they_are():
    content = io.BytesIO(written(tone(0.5, 440, 48000)[None], "ipod", "aac", 48000))
    for place in (0, 1, 100):
        content.seek(place)
        with open_sound(content, "the content") as file:
            assert (file.sampling_rate, file.channels) == (48000, 1)


class Streams(list):
    """Streams of a container, the first of which is of audio."""

    @property
    def audio(self):
        return self[:1]


@pytest.mark.parametrize(
    ("of_stream", "of_file", "streams", "frames"),
    [
        # In units of 1/1000 s, and in microseconds; 8000 samples a second.
        (1500, None, 1, 12_000), (1500, 9_000_000, 1, 12_000), (1500, 9_000_000, 2, 12_000),
        (None, 2_500_000, 1, 20_000), (None, 2_500_000, 2, None), (None, None, 1, None), (None, None, 2, None),
        (None, 63, 1, 1), (None, 62, 1, 0), (0, 2_500_000, 1, 0),
    ],
)  # fmt: skip
def test_how_long_a_container_says_it_is(of_stream, of_file, streams, frames):
    stream = SimpleNamespace(rate=8000, channels=2, duration=of_stream, time_base=Fraction(1, 1000))
    found = _Container(SimpleNamespace(streams=Streams([stream] * streams), duration=of_file), None)
    assert (found.sampling_rate, found.channels, found.frames, found.damaged) == (8000, 2, frames, False)


def test_a_container_that_fails_in_the_middle_is_damaged(monkeypatch):
    content = written(tone(1, 440, 48000)[None], "matroska", "flac", 48000)
    with open_sound(io.BytesIO(content), "the content") as file:
        frames = list(file._container.decode(file._stream))

        def decode(stream):
            yield from frames[:2]
            raise av.error.InvalidDataError(1, "broken")

        monkeypatch.setattr(file, "_container", SimpleNamespace(decode=decode, close=file._container.close))
        assert sum(map(len, file.blocks())) == sum(frame.samples for frame in frames[:2])
        assert file.damaged


def test_files_are_closed_by_whoever_opened_them(tmp_path):
    content = written(tone(0.5, 440, 48000)[None], "matroska", "flac", 48000)
    (tmp_path / "sound.mkv").write_bytes(content)
    with open_sound(tmp_path / "sound.mkv", "sound.mkv") as file:
        assert not file._opened.closed
    assert file._opened.closed
    held = io.BytesIO(content)
    with open_sound(held, "the content"):
        pass
    assert not held.closed


@pytest.mark.parametrize("frames", [0, 1, 3, 4, 7])
def test_a_file_that_never_ends_is_read_to_the_length_that_it_says(frames):
    def read(out):
        out[:3] = 1
        return out[:3]

    endless = SimpleNamespace(samplerate=8000, channels=1, frames=frames, extra_info="", read=read)
    blocks = list(_SndFile(endless).blocks())
    assert [len(block) for block in blocks] == [3] * (frames // 3) + [frames % 3] * (frames % 3 > 0)
