"""Sound files, good and bad."""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import sys
import threading
import tracemalloc
import types
from re import escape

import numpy as np
import pytest
import soundfile

from tests.helpers.signals import RATE, noise, read_audio, silence, tone
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.extras import install_command
from triform.runtime.media.audio import as_samples, open_audio
from triform.runtime.media.log_mel import LogMelWindows, log_mel_maximum

SOUND = tone(3, 440)
# A lossy coder's error, at most, relative to a tone of this amplitude.
LOSSY = 0.05


def never(warning):
    raise AssertionError(warning)


def written(samples, kind="WAV", subtype=None, rate=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype", "step"),
    [
        # The largest error of rounding to so many bits, of samples from -1 to 1.
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-23),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAVEX", "PCM_16", 2**-15),
        ("RF64", "PCM_16", 2**-15),
        ("AIFF", "PCM_16", 2**-15),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
        ("OGG", "VORBIS", LOSSY),
        ("OGG", "OPUS", LOSSY),
        ("MP3", None, LOSSY),
    ],
)
def test_formats(kind, subtype, step):
    content = written(SOUND, kind, subtype)
    with open_audio(content, never) as audio:
        assert (audio.sampling_rate, audio.channels, audio.duration) == (RATE, 1, 3.0)
        found = np.concatenate(list(audio.blocks(RATE)))
    assert found.dtype == np.float32
    assert found.shape == SOUND.shape
    # Lossy coders need a moment at the edges.
    inside = slice(2000, -2000) if step == LOSSY else slice(None)
    assert np.abs(found - SOUND)[inside].max() <= step


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000, 192_000])
def test_rates(rate):
    # 1.6 s are a whole number of samples at each rate.
    found = read_audio(written(tone(1.6, 440, rate), "FLAC", "PCM_24", rate), RATE, never)
    assert len(found) == 1.6 * RATE
    assert np.abs(found - tone(1.6, 440))[2000:-2000].max() <= 1e-4


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_channels_are_mixed_down_to_their_mean(channels):
    parts = np.stack([tone(1, 200 * (channel + 1)) for channel in range(channels)], axis=1)
    with open_audio(written(parts, "WAV", "FLOAT"), never) as audio:
        assert audio.channels == channels
        found = np.concatenate(list(audio.blocks(RATE)))
    assert np.abs(found - parts.mean(axis=1)).max() <= 1e-6


def test_one_channel_may_cancel_another():
    assert not read_audio(written(np.stack([SOUND, -SOUND], axis=1), "WAV", "FLOAT"), RATE, never).any()


def test_it_can_be_read_twice(tmp_path):
    (tmp_path / "a.wav").write_bytes(written(SOUND, rate=48000))
    with open_audio(tmp_path / "a.wav", never) as audio:
        first, second = (np.concatenate(list(audio.blocks(RATE))) for _ in range(2))
    assert np.array_equal(first, second)


def test_silence_is_sound():
    assert np.array_equal(read_audio(written(silence(1)), RATE, never), silence(1))


def stdin(monkeypatch, content):
    reading, writing = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writing, content), os.close(writing)))
    thread.start()
    pipe = open(reading, "rb")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=pipe))
    return thread, pipe


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_standard_input(monkeypatch, kind):
    thread, pipe = stdin(monkeypatch, written(SOUND, kind))
    with open_audio("-", never) as audio:
        assert audio.name == "standard input"
        assert audio.duration == 3.0
        for _ in range(2):
            assert sum(map(len, audio.blocks(RATE))) == len(SOUND)
    thread.join()
    pipe.close()


def test_standard_input_that_is_empty(monkeypatch):
    thread, pipe = stdin(monkeypatch, b"")
    with pytest.raises(InputError, match=r"^standard input is empty$"):
        open_audio("-", never)
    thread.join()
    pipe.close()


def test_a_named_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    thread = threading.Thread(target=lambda: (tmp_path / "pipe.wav").write_bytes(written(SOUND)))
    thread.start()
    assert len(read_audio(tmp_path / "pipe.wav", RATE, never)) == len(SOUND)
    thread.join()


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")],
)
def test_a_cut_file_without_compression_is_read_to_its_end(kind, subtype):
    sound = noise(3)
    content = written(sound, kind, subtype)
    left = content[: len(content) * 2 // 3]
    width = 4 if subtype == "FLOAT" else 2
    warnings = []
    found = read_audio(left, RATE, warnings.append)
    assert len(found) == (len(left) - (len(content) - width * len(sound))) // width
    assert np.abs(found - sound[: len(found)]).max() <= 2**-15
    assert warnings == [f"the content is cut off or damaged; read the {len(found) / RATE:.1f} s that are whole"]


# In seconds of sound: a block or frame of FLAC and MP3, and the page of OGG that the cut went through.
@pytest.mark.parametrize(("kind", "lost"), [("FLAC", 4096 / RATE), ("OGG", 2), ("MP3", 0.2)])
def test_a_cut_compressed_file_is_read_as_far_as_it_is_whole(kind, lost):
    sound = noise(15)
    content = written(sound, kind)
    warnings = []
    with open_audio(content[: len(content) * 2 // 3], warnings.append) as audio:
        found = np.concatenate(list(audio.blocks(RATE)))
        again = np.concatenate(list(audio.blocks(8000)))
    # Every second of noise takes as many bytes as any other, nearly.
    assert 10 - lost - 0.1 < len(found) / RATE < 10.1
    assert len(again) == pytest.approx(len(found) / 2, abs=1)
    if kind == "FLAC":
        assert np.abs(found - sound[: len(found)]).max() <= 2**-15
    # Once, although it was read twice.
    assert warnings == [f"the content is cut off or damaged; read the {len(found) / RATE:.1f} s that are whole"]


def test_what_mpg123_says_of_a_damaged_file_is_not_shown(capfd):
    content = bytearray(written(noise(3), "MP3"))
    for place in range(2000, len(content), 97):
        content[place] ^= 0xFF
    warnings = []
    with open_audio(bytes(content), warnings.append) as audio:
        list(audio.blocks(RATE))
    os.write(2, b"another's\n")
    assert capfd.readouterr().err == "another's\n"
    assert len(warnings) == 1


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024])
def test_a_wav_from_a_pipe_has_no_size_and_is_whole(size):
    content = bytearray(written(SOUND))
    at = content.index(b"data")
    content[at + 4 : at + 8] = content[4:8] = struct.pack("<I", size)
    assert len(read_audio(bytes(content), RATE, never)) == len(SOUND)


def test_samples_that_are_no_numbers_become_silence():
    sound = SOUND.copy()
    sound[[5, 100, 40000]] = np.nan, np.inf, -np.inf
    warnings = []
    found = read_audio(written(sound, "WAV", "FLOAT"), RATE, warnings.append)
    assert np.array_equal(found, np.where(np.isfinite(sound), sound, 0))
    assert warnings == ["the content holds samples that are not numbers; they are taken as silence"]


@pytest.mark.parametrize(
    ("largest", "warned"), [(1.0, False), (8.0, False), (99.0, False), (101.0, True), (32768.0, True)]
)
def test_samples_that_nobody_divided_are_told_of(largest, warned):
    """As a library writes 16-bit numbers that were made floats; what is a little beyond 1 comes from mixing."""
    warnings = []
    found = read_audio(written(largest * SOUND / np.abs(SOUND).max(), "WAV", "FLOAT"), RATE, warnings.append)
    assert np.abs(found).max() == pytest.approx(largest)
    said = f"the content holds samples up to {largest:g} where 1 is full loudness, and models may mishear it"
    assert [warning.startswith(said) for warning in warnings] == [True] * warned


def test_samples_as_numbers():
    for kind in (np.float16, np.float32, np.float64, ">f4"):
        found = as_samples(SOUND.astype(kind))
        assert (found.dtype, found.tolist()) == (np.float32, SOUND.astype(kind).astype(np.float32).tolist())
    assert as_samples(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            (SOUND * 32767).astype(np.int16),
            r"must be floats between -1 and 1, not int16; divide 16-bit samples by 32768",
        ),
        (np.zeros(9, np.uint8), "must be floats between -1 and 1, not uint8$"),
        (np.zeros(9, bool), "must be floats between -1 and 1, not bool$"),
        (np.zeros(9, object), "must be floats between -1 and 1, not object$"),
        (np.zeros((9, 2)), r"must be of one channel, with one dimension, not of the shape \(9, 2\)"),
        (np.zeros((1, 9)), r"must be of one channel, with one dimension, not of the shape \(1, 9\)"),
        (np.zeros(()), r"must be of one channel, with one dimension, not of the shape \(\)"),
        (
            SOUND * 32767 / np.abs(SOUND).max(),
            "must be between -1 and 1, and the largest is 32767; divide 16-bit ones by 32768",
        ),
        (np.array([0, np.nan, 1]), "must be between -1 and 1, and the largest is nan"),
        (np.array([0, -np.inf]), "must be between -1 and 1, and the largest is inf"),
    ],
)
def test_samples_that_would_be_misheard_are_refused(samples, message):
    with pytest.raises(InputError, match=f"^samples {message}"):
        as_samples(samples)


@pytest.mark.parametrize("source", [None, 7, [0.0], bytearray(b"RIFF"), (0.0,)])
def test_what_is_no_recording(source):
    with pytest.raises(InputError, match=f"^a recording must be .*, not a {type(source).__name__}$"):
        open_audio(source, never)


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello world " * 100, r"is not audio of a kind that can be read \(WAV, FLAC"),
    "random": (np.random.default_rng(0).bytes(9999), "is not audio"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(999), "is not audio"),
    "a video": (bytes(4) + b"ftypisom" + bytes(999), "ffmpeg -i"),
    "cut in its header": (written(SOUND)[:30], "cannot be read as audio"),
    "a header alone": (written(SOUND)[:44], "is an audio file without samples"),
    "no length": (written(SOUND[:0]), "is an audio file without samples"),
    "a rate of nothing": (written(SOUND, rate=10), "claims 10 samples a second"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_sound_is_one_line(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    for source in (path, str(path), content):
        with pytest.raises(InputError, match=message) as caught:
            open_audio(source, never)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("the content " if source == content else f"{path} ")


def test_names_that_lead_nowhere_are_one_line(tmp_path):
    (tmp_path / "sound.raw").write_bytes(bytes(100))
    for name, message in [
        (tmp_path, "is a folder; name an audio file$"),
        (tmp_path / "none.wav", "cannot be read: No such file or directory$"),
        ("a\0b", "cannot be read: embedded null byte$"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long$"),
        (tmp_path / "sound.raw", "is not audio"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            open_audio(name, never)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["soundfile", "soxr"])
def test_a_missing_package_is_one_line(monkeypatch, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr("triform.runtime.media.audio.find_spec", lambda name: None if name == missing else found(name))
    with pytest.raises(UnsupportedError, match=escape(install_command("audio"))):
        open_audio(written(SOUND), never)


def test_a_missing_library_is_one_line(monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "soundfile":
                raise OSError("sndfile library not found")

    monkeypatch.delitem(sys.modules, "soundfile")
    monkeypatch.setattr("triform.runtime.media.audio.find_spec", lambda name: True)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(UnsupportedError, match="libsndfile"):
        open_audio(b"", never)


def test_a_long_file_takes_little_memory(tmp_path):
    """20 min, 77 MB once it is float32 at 16 kHz, read, resampled and made features of."""
    second = (1e4 * tone(1, 440, 8000)).astype(np.int16)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 2, "PCM_16") as file:
        for _ in range(1200):
            file.write(np.stack([second, second], axis=1))
    info = AudioInfo("log_mel", RATE, 80, 0.0, 30, 400, 400, 160)
    with open_audio(tmp_path / "long.wav", never) as audio:
        assert audio.duration == 1200
        next(iter(audio.blocks(RATE)))
        tracemalloc.start()
        try:
            maximum = log_mel_maximum(audio.blocks(RATE), info)
            windows = LogMelWindows(audio.blocks(RATE), info, maximum)
            counts = [windows.window(first)[1] for first in range(0, 120_000, 3000)]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert sum(counts) == 120_000
    # A window of sound is 2 MB, of features 1 MB.
    assert peak < 16 << 20


def test_samples_that_would_overflow_when_they_are_resampled():
    loud = np.where(np.arange(RATE) % 2, 3e38, -3e38).astype(np.float32)
    warnings = []
    samples = read_audio(written(loud, "WAV", "FLOAT", 44100), RATE, warnings.append)
    assert not samples.any()
    assert len(warnings) == 1
    assert "not numbers" in warnings[0]


@pytest.mark.parametrize("rate", [999, 1000, 1_000_000, 1_000_001])
def test_rates_that_sound_can_have(rate):
    content = written(np.zeros(2000, np.float32), rate=rate)
    if 1000 <= rate <= 1_000_000:
        with open_audio(content, never) as audio:
            assert (audio.sampling_rate, audio.duration) == (rate, 2000 / rate)
    else:
        with pytest.raises(InputError, match=f"claims {rate} samples a second, which cannot be audio$"):
            open_audio(content, never)
