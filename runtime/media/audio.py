"""Reads sound files of any length: one channel, at the model's sampling rate, block by block in constant memory."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.extras import missing_extra

Samples = NDArray[np.float32]

STDIN = "-"
# Samples of each channel in a block.
_BLOCK = 1 << 16
# A stream with more bytes than this is copied to a temporary file instead of memory.
_SPOOLED = 1 << 26
# Rates in Hz. A damaged file may claim any other rate, and would be resampled to gigabytes.
_LOWEST_RATE, _HIGHEST_RATE = 1000, 1_000_000
# The length that libsndfile reports where the container does not know it.
_UNKNOWN_FRAMES = 2**63 - 1
# Programs that write WAV to a pipe do not know its size yet and write this number or a larger one.
_UNKNOWN_SIZE = 0x7FFFF000
# Padding makes sizes differ, and encoders add to the length of compressed files.
_TOLERATED_BYTES = 8
_TOLERATED_SECONDS = 0.1
# libsndfile's error code for an unknown format.
_UNRECOGNISED_FORMAT = 1


def require_audio() -> None:
    """Check that sound can be read.

    Raises:
        UnsupportedError: a package is not installed, or libsndfile is missing.
    """
    if find_spec("soundfile") is None or find_spec("soxr") is None:
        raise missing_extra("sound needs soundfile and soxr", "audio")
    try:
        import soundfile  # noqa: F401
    except OSError:
        # Wheels for less common platforms do not contain libsndfile.
        raise UnsupportedError(
            "soundfile does not find libsndfile: install it, as apt-get install libsndfile1"
        ) from None


@dataclass
class Audio:
    """A sound file that can be read several times, each time from its beginning. Close it, or use it in a `with`.

    Attributes:
        name: of the file, for messages.
        sampling_rate: of the file, in Hz.
        channels: number of channels in the file.
        duration: in seconds; None where the container does not know it.
    """

    name: str
    sampling_rate: int
    channels: int
    duration: float | None
    _content: Path | IO[bytes]
    _warn: Callable[[str], None]
    _said: set[str] = field(default_factory=set)

    def blocks(self, sampling_rate: int) -> Iterator[Samples]:
        """Read the sound: channels are averaged, then resampled by soxr at its quality HQ.

        A file that is cut off or damaged is read as far as possible, with a warning at its end. Samples that are not
        numbers become 0, with a warning too.

        Args:
            sampling_rate: to resample to, in Hz.

        Yields:
            float32 (samples), never empty; nothing at all for a file without sound.
        """
        if sampling_rate == self.sampling_rate:
            yield from self._mono()
            return
        import soxr

        resampler = soxr.ResampleStream(self.sampling_rate, sampling_rate, 1, dtype="float32", quality="HQ")
        for block in self._mono():
            if len(resampled := resampler.resample_chunk(block)):
                yield resampled
        if len(rest := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
            yield rest

    def close(self) -> None:
        """Delete the temporary file, if there is one."""
        if not isinstance(self._content, Path):
            self._content.close()

    def __enter__(self) -> Self:
        """Return the sound itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `close`."""
        self.close()

    def _mono(self) -> Iterator[Samples]:
        with _open(self._content, self.name) as file:
            damaged = _says_it_is_cut(file.extra_info)
            done, numbers = 0, True
            while True:
                block, failed = _next_block(file)
                damaged |= failed
                if not len(block):
                    break
                done += len(block)
                mixed = block[:, 0] if file.channels == 1 else block.mean(axis=1, dtype=np.float32)
                if not np.isfinite(mixed).all():
                    numbers = False
                    mixed = np.nan_to_num(mixed, nan=0.0, posinf=0.0, neginf=0.0)
                yield np.ascontiguousarray(mixed)
            if self.duration is not None:
                damaged |= done / self.sampling_rate < self.duration - _TOLERATED_SECONDS
        if damaged:
            self._say(f"{self.name} is cut off or damaged; read the {done / self.sampling_rate:.1f} s that are whole")
        if not numbers:
            self._say(f"{self.name} holds samples that are not numbers; they are taken as silence")

    def _say(self, warning: str) -> None:
        """Warn once, however often the file is read."""
        if warning not in self._said:
            self._said.add(warning)
            self._warn(warning)


def open_audio(source: str | Path | bytes, warn: Callable[[str], None]) -> Audio:
    """Open a sound file of any format that libsndfile reads: WAV, FLAC, OGG, MP3, AIFF and more.

    Args:
        source: a file, its content, or "-" for standard input.
        warn: called with one line when a file turns out to be damaged.

    Raises:
        InputError: there is no such file, it cannot be read, is empty, or is not sound.
        UnsupportedError: see `require_audio`.
    """
    require_audio()
    content, name = _content(source)
    try:
        with _open(content, name) as file:
            if not _LOWEST_RATE <= file.samplerate <= _HIGHEST_RATE:
                raise InputError(f"{name} claims {file.samplerate} samples a second, which is no sound")
            if file.frames == 0:
                raise InputError(f"{name} is a sound file of no length")
            known = file.frames < _UNKNOWN_FRAMES
            duration = file.frames / file.samplerate if known else None
            return Audio(name, file.samplerate, file.channels, duration, content, warn)
    except BaseException:
        if not isinstance(content, Path):
            content.close()
        raise


def read_audio(source: str | Path | bytes, sampling_rate: int, warn: Callable[[str], None]) -> Samples:
    """A whole sound file at once. Arguments and errors as `open_audio` and `Audio.blocks`.

    Returns:
        float32 (samples).
    """
    with open_audio(source, warn) as audio:
        return np.concatenate([np.zeros(0, np.float32), *audio.blocks(sampling_rate)])


def _content(source: str | Path | bytes) -> tuple[Path | IO[bytes], str]:
    """What to read from, and its name. A source that cannot be read twice is copied."""
    if isinstance(source, bytes):
        return _not_empty(BytesIO(source), "the content")
    if source == STDIN:
        return _not_empty(_spooled(sys.stdin.buffer), "standard input")
    path = Path(source)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a sound file")
        with path.open("rb") as file:
            if not path.is_file():
                return _not_empty(_spooled(file), str(path))
            if not file.read(1):
                raise InputError(f"{path} is empty")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return path, str(path)


def _spooled(pipe: IO[bytes]) -> IO[bytes]:
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOLED)
    shutil.copyfileobj(pipe, spool)
    return spool


def _not_empty(content: IO[bytes], name: str) -> tuple[IO[bytes], str]:
    content.seek(0)
    if not content.read(1):
        content.close()
        raise InputError(f"{name} is empty")
    return content, name


def _open(content: Path | IO[bytes], name: str) -> Any:
    """A soundfile.SoundFile at its beginning."""
    import soundfile

    if not isinstance(content, Path):
        content.seek(0)
    try:
        return soundfile.SoundFile(content)
    except soundfile.LibsndfileError as error:
        if error.code != _UNRECOGNISED_FORMAT:
            raise InputError(f"{name} cannot be read as sound: {error.error_string}") from None
    except TypeError:
        pass  # soundfile expects samples without a header in a file called .raw
    raise InputError(
        f"{name} is not sound of a kind that can be read (WAV, FLAC, OGG, MP3, AIFF, …); "
        "if it is another kind or a video, convert it first, as ffmpeg -i FILE sound.wav does"
    )


def _next_block(file: Any) -> tuple[Samples, bool]:
    """The next samples, float32 (frames, channels), and whether reading failed after them."""
    import soundfile

    # libsndfile does not tell how far it read before it failed, but leaves the rest of the block unchanged.
    block = np.full((_BLOCK, file.channels), np.nan, np.float32)
    try:
        return file.read(out=block), False
    except soundfile.LibsndfileError:
        untouched = np.isnan(block[:, 0])
        return block[: int(untouched.argmax())] if untouched.any() else block, True


def _says_it_is_cut(log: str) -> bool:
    """Whether libsndfile's log of the file's structure tells that the file ends too early."""
    for claimed, there in re.findall(r": (\d+) \(should be (\d+)\)", log):
        if int(there) + _TOLERATED_BYTES < int(claimed) < _UNKNOWN_SIZE:
            return True
    return "lacks an end-of-stream bit" in log
