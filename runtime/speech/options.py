"""What a user may ask of a transcription."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from triform.runtime.errors import InputError, option
from triform.runtime.media.voice_activity import VoiceActivityOptions

Task = Literal["transcribe", "translate"]
TASKS = ("transcribe", "translate")
# openai/whisper's: greedy first, then more and more random.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class TranscribeOptions:
    """How to transcribe. The defaults are those of openai/whisper, but for a single beam.

    Attributes:
        language: its code, as the model has it, or "auto" to detect it; when None, the one that the model is for, or
            detected.
        task: write what is said, or what it means in English; when None, what the model is for, or what is said.
        timestamps: let the model say when things are said, and cut long sound where it says so.
        word_timestamps: find out when each word is said.
        vad: skip what is not speech.
        batch: windows to run at once. More than 1 cuts the sound beforehand, at pauses with `vad`, and each window is
            read by itself.
        num_beams: answers followed at once, where nothing is drawn; 1 means no beam search.
        best_of: answers drawn above a temperature of 0, of which the likeliest is kept.
        temperatures: tried in turn until an answer is neither repetitive nor unlikely.
        initial_prompt: a text in the style and with the names to be expected, as if said before.
        hotwords: words to be expected, put before every window.
        condition_on_previous_text: whether a window is read with what was said before it; None is yes, unless windows
            are read at once.
        compression_ratio_threshold: an answer that zlib makes so many times smaller repeats itself; None never minds.
        logprob_threshold: an answer of a smaller mean log-probability, in nats, is unlikely; None never minds.
        no_speech_threshold: a window of a larger probability that nobody speaks, and with an answer that is unlikely
            or repeats itself, is silence; None never minds.
        max_new_tokens: of a window; as many as the model can say when None.
        seed: makes what is drawn repeatable.
        voice_activity: what `vad` takes for speech; the defaults when None.

    Raises:
        InputError: a value is out of range, or two contradict each other.
    """

    language: str | None = None
    task: Task | None = None
    timestamps: bool = True
    word_timestamps: bool = False
    vad: bool = False
    batch: int = 1
    num_beams: int = 1
    best_of: int = 5
    temperatures: tuple[float, ...] = TEMPERATURES
    initial_prompt: str | None = None
    hotwords: str | None = None
    condition_on_previous_text: bool | None = None
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    max_new_tokens: int | None = None
    seed: int | None = None
    voice_activity: VoiceActivityOptions | None = None

    def __post_init__(self) -> None:
        if self.task not in (None, *TASKS):
            raise InputError(f"{option('task')} must be {' or '.join(TASKS)}, not {self.task!r}")
        for name in ("batch", "num_beams", "best_of", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{option(name)} must be at least 1, not {value}")
        if not self.temperatures or not all(0 <= one < math.inf for one in self.temperatures):
            raise InputError(f"{option('temperatures')} must be one or more numbers, 0 or more")
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            value = getattr(self, name)
            if value is not None and math.isnan(value):
                raise InputError(f"{option(name)} must be a number")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise InputError(f"{option('seed')} must be a whole number from 0 to 2**64 - 1, not {self.seed}")
        if self.condition_on_previous_text and self.batch > 1:
            raise InputError(
                f"{option('condition_on_previous_text')} reads one window after another: leave out {option('batch')}"
            )

    @property
    def conditioned(self) -> bool:
        """Whether a window is read with what was said before it."""
        return self.batch == 1 if self.condition_on_previous_text is None else self.condition_on_previous_text
