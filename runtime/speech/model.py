"""The classes of loaded speech models, which transcribe recordings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triform.runtime.encoder_decoder.model import EncoderDecoder
from triform.runtime.media.audio import Audio, open_audio
from triform.runtime.speech.ctc.recognizer import CtcRecognizer
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.transcript import Segment
from triform.runtime.speech.transcription import transcribe


class SpeechModel(EncoderDecoder):
    """A loaded bundle of a speech model. Reusable, by several threads at once.

    Example:
        >>> model = triform.load_speech("whisper-tiny.en-int8")  # doctest: +SKIP
        >>> print("".join(segment.text for segment in model.transcribe("talk.mp3")))  # doctest: +SKIP
    """

    def transcribe(
        self,
        recording: str | Path | bytes | Audio | NDArray[np.float32],
        options: TranscribeOptions | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> list[Segment]:
        """Transcribe a recording of any length. `triform.transcribe` yields the segments as they are ready.

        Args:
            recording: the path of an audio file, its content, an `Audio`, or samples: float32 (samples,), one channel,
                at the model's sampling rate.
            options: the defaults when None.
            progress: called with the number of seconds that have been transcribed.

        Returns:
            the segments in order; none where nobody speaks. A truncated or damaged file is read up to the damage, with
            a warning.

        Raises:
            InputError: the model does not support an option, or the file cannot be read.
            UnsupportedError: a package that reads audio files is missing.
        """
        return _transcribed(self, recording, options, progress)


class CtcModel(CtcRecognizer):
    """A loaded bundle of a model for CTC, such as wav2vec2. Reusable, by several threads at once.

    Example:
        >>> model = triform.load_speech("wav2vec2-base-960h-int8")  # doctest: +SKIP
        >>> print("".join(segment.text for segment in model.transcribe("talk.mp3")))  # doctest: +SKIP
    """

    def transcribe(
        self,
        recording: str | Path | bytes | Audio | NDArray[np.float32],
        options: TranscribeOptions | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> list[Segment]:
        """Transcribe a recording of any length. Arguments, results and errors as of `SpeechModel.transcribe`.

        Of the options, `word_timestamps`, `vad`, `voice_activity`, `batch` and `num_beams` mean something to such a
        model; any other is refused.
        """
        return _transcribed(self, recording, options, progress)


def _transcribed(
    model: SpeechModel | CtcModel,
    recording: str | Path | bytes | Audio | NDArray[np.float32],
    options: TranscribeOptions | None,
    progress: Callable[[float], None] | None,
) -> list[Segment]:
    if isinstance(recording, Audio | np.ndarray):
        return list(transcribe(model, recording, options, progress=progress))
    with open_audio(recording, lambda warning: warnings.warn(warning, stacklevel=4)) as audio:
        return list(transcribe(model, audio, options, progress=progress))
