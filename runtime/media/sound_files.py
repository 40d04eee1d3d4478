"""Opens audio files with libsndfile, or with FFmpeg's libraries if it does not know the format (M4A, MP4, WebM, …).

Both yield blocks of float32 samples and report whether the file is damaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import InputError
from triform.runtime.panics import without_chatter

Samples = NDArray[np.float32]

# Samples of every channel in a block.
_BLOCK = 1 << 16
# libsndfile also reads SDS, whose damaged files never end, and RAW, which has no header.
_FORMATS = frozenset(
    "WAV WAVEX RF64 W64 FLAC OGG MP3 AIFF AU CAF NIST VOC SVX IRCAM AVR PAF PVF HTK MAT4 MAT5 MPC2K WVE XI".split()
)
# Containers that hold the audio itself. Playlists are left out: they could open other files and addresses.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,ac3,avi,asf,mpeg,mpegts,flv"
# libsndfile's value for a length that the container does not store.
_UNKNOWN_FRAMES = 2**63 - 1
# Programs that write WAV into a pipe do not know its size yet and store this or more.
_UNKNOWN_SIZE = 0x7FFFF000
# Sizes may be off by padding.
_TOLERATED_BYTES = 8
# libsndfile's error code for an unknown format.
_UNRECOGNISED_FORMAT = 1


class SoundFile(Protocol):
    """An open audio file.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        frames: samples of each channel; None if the file does not store it.
        damaged: whether the part read so far is known to be truncated or damaged.
    """

    sampling_rate: int
    channels: int
    frames: int | None
    damaged: bool

    def blocks(self) -> Iterator[Samples]:
        """Yield the samples, float32 (frames, channels), never empty, up to the end or to the damage."""

    def __enter__(self) -> Self:
        """The file itself."""

    def __exit__(self, *error: object) -> None:
        """Close it."""


def open_sound(content: Path | IO[bytes], name: str) -> SoundFile:
    """Open an audio file at its beginning.

    Args:
        content: a path, or a seekable binary file.
        name: of the file, for errors.

    Raises:
        InputError: the file is not audio, or its format is not supported.
    """
    if not isinstance(content, Path):
        content.seek(0)
    sound = _by_libsndfile(content, name)
    if sound is None and find_spec("av") is not None:
        if not isinstance(content, Path):
            content.seek(0)
        sound = _by_ffmpeg(content, name)
    if sound is None:
        raise InputError(
            f"{name} is not audio of a kind that can be read (WAV, FLAC, OGG, MP3, AIFF, M4A, MP4, WebM, …); "
            "convert it first, as ffmpeg -i FILE sound.wav does"
        )
    return sound


def _by_libsndfile(content: Path | IO[bytes], name: str) -> SoundFile | None:
    import soundfile

    if _is_sample_dump(content):
        return None
    try:
        with without_chatter():
            file = soundfile.SoundFile(content)
    except soundfile.LibsndfileError as error:
        if error.code != _UNRECOGNISED_FORMAT:
            raise InputError(f"{name} cannot be read as audio: {error.error_string}") from None
        return None
    except TypeError:
        return None  # soundfile takes a file called .raw for samples without a header
    if file.format not in _FORMATS:
        file.close()
        return None
    return _SndFile(file)


def _is_sample_dump(content: Path | IO[bytes]) -> bool:
    """Whether a file begins as MIDI's sample dumps (SDS) do: libsndfile prints what is damaged in them."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return _is_sample_dump(file)
    start = content.read(4)
    content.seek(0)
    return start[:2] == b"\xf0\x7e" and start[3:] == b"\x01"


class _SndFile:
    """A file that libsndfile reads."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sampling_rate, self.channels = file.samplerate, file.channels
        self.frames = file.frames if file.frames < _UNKNOWN_FRAMES else None
        self.damaged = _says_it_is_cut(file.extra_info)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def blocks(self) -> Iterator[Samples]:
        import soundfile

        left = self.frames
        while left is None or left > 0:
            # libsndfile does not report how far it read before it failed, but it leaves the rest unchanged.
            block = np.full((_BLOCK, self.channels), np.nan, np.float32)
            try:
                with without_chatter():
                    read = self._file.read(out=block)
            except soundfile.LibsndfileError:
                self.damaged = True
                untouched = np.isnan(block[:, 0])
                read = block[: int(untouched.argmax())] if untouched.any() else block
            if not len(read):
                return
            # A damaged file may yield samples without end.
            yield read if left is None else read[:left]
            left = None if left is None else left - len(read)


def _says_it_is_cut(log: str) -> bool:
    """Whether a file is truncated, according to libsndfile's log of its structure."""
    for claimed, there in re.findall(r": (\d+) \(should be (\d+)\)", log):
        if int(there) + _TOLERATED_BYTES < int(claimed) < _UNKNOWN_SIZE:
            return True
    return "lacks an end-of-stream bit" in log


def _by_ffmpeg(content: Path | IO[bytes], name: str) -> SoundFile | None:
    import av

    # A file object, not a name: names can be addresses.
    opened = content.open("rb") if isinstance(content, Path) else content
    try:
        container = av.open(opened, metadata_errors="ignore", options={"format_whitelist": _CONTAINERS})
    except (av.FFmpegError, ValueError, OSError):
        if isinstance(content, Path):
            opened.close()
        return None
    if not container.streams.audio or container.streams.audio[0].codec_context is None:
        unknown = bool(container.streams.audio)
        container.close()
        if isinstance(content, Path):
            opened.close()
        raise InputError(f"{name} holds {'audio in an unknown codec; convert it first' if unknown else 'no audio'}")
    return _Container(container, opened if isinstance(content, Path) else None)


class _Container:
    """The first audio stream of a file that FFmpeg's libraries read."""

    def __init__(self, container: Any, opened: IO[bytes] | None) -> None:
        self._container, self._opened = container, opened
        self._stream = stream = container.streams.audio[0]
        self.sampling_rate, self.channels = int(stream.rate or 0), int(stream.channels)
        seconds = _seconds(container, stream)
        self.frames = None if seconds is None else round(seconds * self.sampling_rate)
        self.damaged = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()
        if self._opened is not None:
            self._opened.close()

    def blocks(self) -> Iterator[Samples]:
        import av

        resampler = av.AudioResampler(format="fltp", layout=self._stream.layout, rate=self.sampling_rate)
        try:
            for frame in self._container.decode(self._stream):
                yield from _arrays(resampler.resample(frame))
            yield from _arrays(resampler.resample(None))
        except av.FFmpegError:
            self.damaged = True


def _seconds(container: Any, stream: Any) -> float | None:
    """The duration of a stream; None if the file does not store it."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # A file with a single stream is as long as that stream. FFmpeg counts in microseconds.
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1e6)
    return None


def _arrays(frames: Any) -> Iterator[Samples]:
    for frame in frames:
        samples = frame.to_ndarray().T
        if len(samples):
            yield samples
