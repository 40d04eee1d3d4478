"""Transcribes recordings of any length, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.bundle.tasks import method_hint
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.audio import as_samples
from triform.runtime.speech.ctc.recognizer import CtcRecognizer
from triform.runtime.speech.ctc.transcription import transcribe_ctc
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.recording import Recording, SamplesRecording
from triform.runtime.speech.transcript import Segment
from triform.runtime.speech.utterances import transcribe_utterances
from triform.runtime.speech.windows import WindowReader

__all__ = ["TranscribeOptions", "audio_info", "transcribe"]


def transcribe(
    model: SourceWriter | CtcRecognizer,
    recording: Recording | NDArray[np.float32],
    options: TranscribeOptions | None = None,
    *,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Segment]:
    """Transcribe a recording, segment by segment.

    Source: openai/whisper's ``transcribe``: each window of 30 s starts where the last segment of the previous window
    ended. Models without timestamps (Moonshine, Speech2Text) get one utterance after another; models for CTC get
    overlapping chunks.

    Args:
        model: a speech model.
        recording: an `Audio`, or samples: float32 (samples), one channel, at the model's sampling rate.
        options: the defaults when None.
        progress: called with the number of seconds that have been transcribed.

    Returns:
        an iterator of segments, from first to last; empty if nobody speaks.

    Raises:
        InputError: the model does not support an option, or the file cannot be read.
        UnsupportedError: the model does not read audio, or a package is missing.
    """
    options, report = options or TranscribeOptions(), progress or (lambda seconds: None)
    if isinstance(recording, np.ndarray):
        recording = SamplesRecording(as_samples(recording))
    if isinstance(model, CtcRecognizer):
        return transcribe_ctc(model, recording, options, report)
    info = audio_info(model)
    if model.info.speech is None:
        return transcribe_utterances(model, info, recording, options, report)
    reader = WindowReader(model, info, options, report)
    return reader.read(recording)


def audio_info(model: SourceWriter) -> AudioInfo:
    """Return the audio settings of a speech model.

    Raises:
        UnsupportedError: the model does not read audio.
    """
    info = model.info.audio
    if info is None:
        hint = method_hint(model.manifest.task, "export a speech model")
        raise UnsupportedError(f"{model.manifest.model_name} reads {model.info.source}, not audio: {hint}")
    return info
