"""Texts and recordings of the user's own to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triform.export.samples.texts import calibration_mixture
from triform.runtime.errors import InputError
from triform.runtime.media.audio import open_audio

# Recordings are cut into pieces of this length, in seconds, of which so many are heard.
_PIECE, _PIECES = 29, 16


def calibration_text(files: Sequence[str]) -> str:
    """What the files hold, one after another; the text that comes with the exporter if there are none.

    Raises:
        InputError: a file cannot be read, is not UTF-8, or holds no words.
    """
    if not files:
        return calibration_mixture()
    return "\n\n".join(_text(Path(name)) for name in files)


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read to calibrate on it: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text in UTF-8; calibrate on plain text") from None
    if not text.split():
        raise InputError(f"{path} holds no words to calibrate on")
    return text


def check_recordings(files: Sequence[str]) -> None:
    """Open each file, before anything takes long. Errors as `recordings`."""
    for name in files:
        with open_audio(name, _refuse):
            pass


def recordings(files: Sequence[str], sampling_rate: int) -> list[NDArray[np.float32]]:
    """Pieces of the recordings, spread over all of them: each float32 (samples,), at most 29 s long.

    Args:
        files: of audio.
        sampling_rate: of the pieces, in Hz.

    Raises:
        InputError: a file cannot be read, is not audio, or is damaged.
        UnsupportedError: the packages that read audio are not installed.
    """
    pieces = [piece for name in files for piece in _pieces(name, sampling_rate)]
    chosen = np.linspace(0, len(pieces) - 1, min(_PIECES, len(pieces))).round().astype(int)
    return [pieces[index] for index in chosen]


def _pieces(name: str, sampling_rate: int) -> Iterator[NDArray[np.float32]]:
    with open_audio(name, _refuse) as audio:
        samples = np.concatenate(list(audio.blocks(sampling_rate)))
    for start in range(0, len(samples), _PIECE * sampling_rate):
        yield samples[start : start + _PIECE * sampling_rate]


def _refuse(warning: str) -> None:
    raise InputError(f"{warning}; calibrate on whole recordings")
