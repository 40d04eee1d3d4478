"""The words that a bundle of a speech model writes, and how many of them change when it is quantized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from triform.export.verify.transcripts import token_errors
from triform.runtime.errors import TriformError
from triform.runtime.evaluation.speech import spoken_words
from triform.runtime.speech.model import SpeechModel
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.transcript import Segment

# Most tokens of a transcript, for each second: what a model makes of sounds that it does not understand may not end.
_TOKENS_A_SECOND = 8
# Names of English among the languages that a model writes.
_ENGLISH = ("en", "eng", "en_XX", "eng_Latn")


@dataclass(frozen=True)
class Heard:
    """What a model writes to a recording.

    Attributes:
        words: as `triform evaluate` counts them: in lower case, without punctuation.
        reliable: whether neither of Whisper's thresholds takes the text for a failure, as unlikely or repetitive.
    """

    words: list[str]
    reliable: bool


def heard_words(model: SpeechModel, recordings: Sequence[NDArray[np.float32]]) -> list[Heard]:
    """Transcribe recordings greedily, without times, as the runtime does.

    Args:
        model: an encoder-decoder.
        recordings: float32 (samples,) each, at the model's sampling rate; what is longer than it hears is left out.

    Raises:
        TriformError: the model cannot transcribe.
    """
    return [_heard(model, recording) for recording in recordings]


def _heard(model: SpeechModel, recording: NDArray[np.float32]) -> Heard:
    info, speech = model.info.audio, model.info.speech
    if info is None:
        return Heard([], reliable=False)
    samples = recording[: round(info.longest * info.sampling_rate)]
    languages = () if speech is not None else model.text.languages.targets
    options = TranscribeOptions(
        # Of a model that must be told a language.
        language=next((name for name in _ENGLISH if name in languages), next(iter(languages), None)),
        timestamps=speech is None,
        num_beams=1,
        temperatures=(0.0,),
        max_new_tokens=max(1, round(_TOKENS_A_SECOND * len(samples) / info.sampling_rate)),
    )
    segments = model.transcribe(samples, options)
    text = " ".join(segment.text for segment in segments)
    return Heard(spoken_words(text).split(), all(_is_reliable(segment, options) for segment in segments))


def _is_reliable(segment: Segment, options: TranscribeOptions) -> bool:
    least, most = options.logprob_threshold or -math.inf, options.compression_ratio_threshold or math.inf
    return segment.avg_logprob >= least and segment.compression_ratio <= most


@dataclass(frozen=True)
class WordErrors:
    """How many words change.

    Attributes:
        share: words to insert, delete or replace, per word of the original.
        words: that the original writes.
    """

    share: float
    words: int


class WordCount:
    """Compares models with the words that an original writes, where it understands what it hears.

    Attributes:
        words: that the original writes to the recordings that it understands.
    """

    def __init__(self, original: SpeechModel, recordings: Sequence[NDArray[np.float32]]) -> None:
        """Transcribe with the original.

        Raises:
            TriformError: it cannot transcribe.
        """
        heard = heard_words(original, recordings)
        understood = [item.reliable for item in heard]
        self._expected = [item.words for item in compress(heard, understood)]
        self._recordings = list(compress(recordings, understood))
        self.words = sum(map(len, self._expected))

    def errors(self, model: SpeechModel) -> WordErrors:
        """The words that another model of the same kind writes otherwise; of one that cannot transcribe, beyond all."""
        try:
            heard = heard_words(model, self._recordings)
        except TriformError:
            return WordErrors(math.inf, self.words)
        pairs = zip(self._expected, (item.words for item in heard), strict=True)
        return WordErrors(token_errors(pairs), self.words)
