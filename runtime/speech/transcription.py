"""Speech to text, of recordings of any length, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.bundle.tasks import method_hint
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import UnsupportedError
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.recording import Recording, SamplesRecording
from triform.runtime.speech.transcript import Segment
from triform.runtime.speech.utterances import transcribe_utterances
from triform.runtime.speech.windows import WindowReader

__all__ = ["TranscribeOptions", "audio_info", "transcribe"]


def transcribe(
    model: SourceWriter,
    recording: Recording | NDArray[np.float32],
    options: TranscribeOptions | None = None,
    *,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Segment]:
    """Write down what is said.

    Source: openai/whisper's ``transcribe``: windows of 30 s, of which each starts where the last one's last segment
    ended. Models that say nothing of time (Moonshine, Speech2Text) get one utterance after another.

    Args:
        model: that reads sound.
        recording: an `Audio`, or samples: float32 (samples), one channel, at the model's sampling rate.
        options: the defaults when None.
        progress: called with how many seconds of the recording are done.

    Returns:
        an iterator of segments, from first to last, as they are found. Nothing where nobody speaks.

    Raises:
        InputError: an option that the model has no use for, or a file that cannot be read.
        UnsupportedError: the model does not read sound, or a package is missing.
    """
    options, told = options or TranscribeOptions(), progress or (lambda seconds: None)
    info = audio_info(model)
    if isinstance(recording, np.ndarray):
        recording = SamplesRecording(np.asarray(recording, np.float32))
    if model.info.speech is None:
        return transcribe_utterances(model, info, recording, options, told)
    reader = WindowReader(model, info, options, told)
    return reader.read(recording)


def audio_info(model: SourceWriter) -> AudioInfo:
    """How the model is given sound.

    Raises:
        UnsupportedError: it is given something else.
    """
    info = model.info.audio
    if info is None:
        hint = method_hint(model.manifest.task, "export a speech model")
        raise UnsupportedError(f"{model.manifest.model_name} reads {model.info.source}, not sound: {hint}")
    return info
