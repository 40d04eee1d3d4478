"""The options of a transcription."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from triform.runtime.errors import InputError, option, refuse_unused
from triform.runtime.generation.options.checks import at_least_one, check, whole_from_zero
from triform.runtime.media.voice_activity import VoiceActivityOptions

Task = Literal["transcribe", "translate"]
TASKS = ("transcribe", "translate")
# openai/whisper's: greedy first, then more and more random.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_BEST_OF = 5


@dataclass(frozen=True)
class TranscribeOptions:
    """How to transcribe. The defaults are those of openai/whisper, except for the number of beams.

    Attributes:
        language: its code in the model, or "auto" to detect it; when None, the model's default if it has one.
        task: transcribe, or translate into English; the model's default, or else transcribe, when None.
        timestamps: let the model predict timestamps, and cut long audio at them.
        word_timestamps: find the time of each word.
        vad: skip everything that is not speech (voice activity detection).
        batch: windows to run at once. More than 1 cuts the audio beforehand, at pauses with `vad`, and transcribes each
            window independently.
        num_beams: beams at a temperature of 0; 1 means no beam search. The model's own number, or else 1, when None.
        best_of: samples at a temperature above 0, of which the most likely is kept.
        temperatures: tried in turn until the text is neither repetitive nor unlikely.
        initial_prompt: a text with the expected style and names, used as if spoken before the recording.
        hotwords: expected words, put before every window.
        condition_on_previous_text: whether the previous text precedes each window; None means yes, unless `batch` is
            above 1.
        compression_ratio_threshold: a text with a higher compression ratio is repetitive; None disables the check.
        logprob_threshold: a text with a lower mean log-probability, in nats, is unlikely; None disables the check.
        no_speech_threshold: a window with a higher probability that nobody speaks, and a text that is unlikely or
            repetitive, is silence; None disables the check.
        max_new_tokens: per window; as many as the model supports when None.
        seed: makes sampling reproducible.
        voice_activity: settings of `vad`; the defaults when None.

    Raises:
        InputError: a value is out of range, or two contradict each other.
    """

    language: str | None = None
    task: Task | None = None
    timestamps: bool = True
    word_timestamps: bool = False
    vad: bool = False
    batch: int = 1
    num_beams: int | None = None
    best_of: int = _BEST_OF
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
        for name in ("language", "initial_prompt", "hotwords"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"{option(name)} must be a text, not {getattr(self, name)!r:.60}")
        check(self, at_least_one(), "batch", "num_beams", "best_of", "max_new_tokens")
        given = self.temperatures if isinstance(self.temperatures, tuple | list) else ()
        if not given or not all(_is_number(value) and 0 <= value < math.inf for value in given):
            raise InputError(f"{option('temperatures')} must be one or more numbers, 0 or more")
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                raise InputError(f"{option(name)} must be a number")
        check(self, whole_from_zero(2**64), "seed")
        self._check_unused()

    def _check_unused(self) -> None:
        """Refuse what has no effect beside the other options."""
        in_turn = f"is for one window after another, and {option('batch')} reads several at once"
        refuse_unused(in_turn, condition_on_previous_text=bool(self.condition_on_previous_text) and self.batch > 1)
        if not any(self.temperatures):
            refuse_unused("is for sampling, and here the only temperature is 0", best_of=self.best_of != _BEST_OF)
        if 0 not in self.temperatures:
            refuse_unused("is for a temperature of 0, which is not tried", num_beams=(self.num_beams or 1) > 1)
        checks = (self.compression_ratio_threshold, self.logprob_threshold)
        never = all(limit is None or math.isinf(limit) for limit in checks)
        several = len(self.temperatures) > 1 and self.temperatures != TEMPERATURES
        refuse_unused("has several, and no threshold that leads from one to the next", temperatures=several and never)

    @property
    def conditioned(self) -> bool:
        """Whether the previous text precedes each window."""
        return self.batch == 1 if self.condition_on_previous_text is None else self.condition_on_previous_text


def _is_number(value: object) -> bool:
    """Whether a value is a number, or an infinity, which switches a check off."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
