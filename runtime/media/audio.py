"""Reads audio files of any length: one channel, at the model's sampling rate, block by block in constant memory."""

from __future__ import annotations

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

from triform.runtime.errors import InputError, OutOfMemoryError, UnsupportedError, is_out_of_memory
from triform.runtime.extras import missing_extra
from triform.runtime.media.sound_files import Samples, open_sound

STDIN = "-"
# A stream with more bytes than this is copied to a temporary file instead of memory.
_SPOOLED = 1 << 26
# Rates in Hz. A damaged file may claim any other rate, and would be resampled to gigabytes.
_LOWEST_RATE, _HIGHEST_RATE = 1000, 1_000_000
# Samples are between -1 and 1, or 16-bit numbers written as floats. Larger ones overflow when they are resampled.
_LOUDEST = 1e9
# Mixes and filters may go beyond 1; numbers such as these were meant to be divided, by 32768 for instance.
_NEVER_AS_LOUD = 100.0
# Encoders add to the length of compressed files.
_TOLERATED_SECONDS = 0.1


def require_audio() -> None:
    """Check that audio can be read.

    Raises:
        UnsupportedError: a package is not installed, or libsndfile is missing.
        OutOfMemoryError: libsndfile does not fit into memory.
    """
    if find_spec("soundfile") is None or find_spec("soxr") is None:
        raise missing_extra("audio needs soundfile and soxr", "audio")
    try:
        import soundfile  # noqa: F401
    except OSError as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"libsndfile does not fit into memory ({error})") from error
        # Wheels for less common platforms do not contain libsndfile.
        raise UnsupportedError(
            "soundfile does not find libsndfile: install it, as apt-get install libsndfile1"
        ) from None


def as_samples(array: NDArray[Any]) -> Samples:
    """Samples that a user passes, as float32.

    Args:
        array: floats (samples,), one channel.

    Raises:
        InputError: they are whole numbers, whose range is not known here; have several channels; or are not all finite.
    """
    if array.dtype.kind != "f":
        hint = "; divide 16-bit samples by 32768" if array.dtype.kind == "i" else ""
        raise InputError(f"samples must be floats between -1 and 1, not {array.dtype}{hint}")
    if array.ndim != 1:
        raise InputError(f"samples must be of one channel, with one dimension, not of the shape {array.shape}")
    largest = float(np.abs(array).max(initial=0))
    # NaN is not below anything.
    if not largest < _NEVER_AS_LOUD:
        raise InputError(
            f"samples must be between -1 and 1, and the largest is {largest:g}; divide 16-bit ones by 32768"
        )
    return np.asarray(array, np.float32)


@dataclass
class Audio:
    """An audio file that can be read several times, each time from its beginning. Close it, or use it in a `with`.

    Attributes:
        name: of the file, for messages.
        sampling_rate: of the file, in Hz.
        channels: number of channels in the file.
        duration: in seconds; None if the container does not store it.
    """

    name: str
    sampling_rate: int
    channels: int
    duration: float | None
    _content: Path | IO[bytes]
    _warn: Callable[[str], None]
    _said: set[str] = field(default_factory=set)

    def blocks(self, sampling_rate: int) -> Iterator[Samples]:
        """Read the audio: channels are averaged, then resampled by soxr at its quality HQ.

        A truncated or damaged file is read as far as possible, with a warning at the end. Samples that are not finite
        become 0, also with a warning; and there is one for samples far beyond 1.

        Args:
            sampling_rate: to resample to, in Hz.

        Yields:
            float32 (samples), never empty; nothing at all for a file without audio.
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
        """Return the audio itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `close`."""
        self.close()

    def _mono(self) -> Iterator[Samples]:
        with open_sound(self._content, self.name) as file:
            done, numbers, largest = 0, True, 0.0
            for block in file.blocks():
                done += len(block)
                mixed = block[:, 0] if file.channels == 1 else block.mean(axis=1, dtype=np.float32)
                # NaN is not below anything.
                audible = np.abs(mixed) < _LOUDEST
                if not audible.all():
                    numbers = False
                    mixed = np.where(audible, mixed, np.float32(0))
                largest = max(largest, float(np.abs(mixed).max(initial=0)))
                yield np.ascontiguousarray(mixed)
            damaged = file.damaged
            if self.duration is not None:
                damaged |= done / self.sampling_rate < self.duration - _TOLERATED_SECONDS
        if damaged:
            self._say(f"{self.name} is cut off or damaged; read the {done / self.sampling_rate:.1f} s that are whole")
        if not numbers:
            self._say(f"{self.name} holds samples that are not numbers; they are taken as silence")
        if largest >= _NEVER_AS_LOUD:
            self._say(
                f"{self.name} holds samples up to {largest:g} where 1 is full loudness, and models may mishear it; "
                "write it again with its samples divided, as 16-bit ones are by 32768"
            )

    def _say(self, warning: str) -> None:
        """Warn once, however often the file is read."""
        if warning not in self._said:
            self._said.add(warning)
            self._warn(warning)


def open_audio(source: str | Path | bytes, warn: Callable[[str], None]) -> Audio:
    """Open an audio file of any format that libsndfile or FFmpeg reads: WAV, FLAC, OGG, MP3, M4A, MP4 and more.

    Args:
        source: the path of a file, its content, or "-" for standard input.
        warn: called with one line if the file is damaged.

    Raises:
        InputError: the file does not exist, cannot be read, is empty, or is not audio.
        UnsupportedError: see `require_audio`.
    """
    require_audio()
    content, name = _content(source)
    try:
        with open_sound(content, name) as file:
            rate = file.sampling_rate
            if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
                raise InputError(f"{name} claims {rate} samples a second, which cannot be audio")
            if file.frames == 0:
                raise InputError(f"{name} is an audio file without samples")
            duration = None if file.frames is None else file.frames / rate
            return Audio(name, rate, file.channels, duration, content, warn)
    except BaseException:
        if not isinstance(content, Path):
            content.close()
        raise


def _content(source: str | Path | bytes) -> tuple[Path | IO[bytes], str]:
    """The content and its name. A source that cannot be read twice is copied."""
    if isinstance(source, bytes):
        return _not_empty(BytesIO(source), "the content")
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise InputError(f"a recording must be a path, a file's content or a numpy array of samples, not a {kind}")
    if source == STDIN:
        return _not_empty(_spooled(sys.stdin.buffer), "standard input")
    path = Path(source)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name an audio file")
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
