"""Builds the prompt of a speech model: previous text, language, task, and whether to predict timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.encoder_decoder.source_text import find_language
from triform.runtime.errors import InputError, option, refuse_unused
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.text.tokenizer import Tokenizer

# Names of the language of an English-only model.
_ENGLISH = ("en", "english")


class SpeechPrompt:
    """Builds the decoder tokens that each window begins with, as openai/whisper does.

    Attributes:
        carried: the tokens of the initial prompt, used as if spoken before the first window.
    """

    def __init__(
        self, info: SpeechInfo, manifest: Manifest, start: int, tokenizer: Tokenizer, options: TranscribeOptions
    ) -> None:
        """Check that the model supports the options.

        Args:
            info: the model's special tokens.
            manifest: for the length of its context.
            start: the token that decoding starts with.
            tokenizer: for the initial prompt and hotwords.
            options: the user's.

        Raises:
            InputError: the model does not support the language, the task, an initial prompt or hotwords.
        """
        check_language(info, options)
        self._info = info
        self._start = start
        self._options = options
        # openai/whisper keeps half of the context for the transcript, and a token for the marker before the text.
        self._room = manifest.max_length // 2 - 1
        self.carried = self._words(tokenizer, options.initial_prompt, "initial_prompt")
        self._hotwords = self._words(tokenizer, options.hotwords, "hotwords")[: self._room]

    def before(self, previous: Sequence[int]) -> list[int]:
        """Return the tokens that precede the start token of a window.

        Args:
            previous: text tokens of earlier windows, the latest last; the last ones that fit are used.
        """
        room = self._room - len(self._hotwords)
        kept = list(previous[-room:]) if room else []
        if self._info.previous is None or not (self._hotwords or kept):
            return []
        return [self._info.previous, *self._hotwords, *kept]

    def start(self, language: str | None) -> list[int]:
        """Return the tokens that a window begins with, from the start token on.

        Args:
            language: one of the model's; None for an English-only model.
        """
        tokens = [self._start]
        if language is not None:
            chosen = self._options.task or self._info.default_task
            task = self._info.translate if chosen == "translate" else self._info.transcribe
            tokens += [self._info.languages[language], *([] if task is None else [task])]
        return tokens if self._options.timestamps else [*tokens, self._info.no_timestamps]

    def _words(self, tokenizer: Tokenizer, text: str | None, name: str) -> list[int]:
        if text is None or not text.strip():
            return []
        if self._info.previous is None:
            raise InputError(f"this model does not take text before a window: leave out {option(name)}")
        ids: list[int] = tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
        return ids


def check_language(info: SpeechInfo, options: TranscribeOptions) -> str | None:
    """Return the code of the options' language or the model's default; None to detect it, or if there is only one.

    Raises:
        InputError: the model does not support the language or the task.
    """
    if info.languages:
        if options.task == "translate" and info.translate is None:
            raise InputError(f"this model cannot translate: leave out {option('task')} translate")
        if options.language is None:
            return info.default_language
        return None if _is_auto(options) else find_language(options.language, info.languages)
    if options.task == "translate":
        raise InputError(f"this model knows English only and cannot translate: leave out {option('task')} translate")
    refuse_unused("auto has nothing to detect: this model knows English only", language=_is_auto(options))
    if options.language is not None and not _is_auto(options) and options.language.strip().lower() not in _ENGLISH:
        raise InputError(f"this model knows English only, not {options.language!r}: leave out {option('language')}")
    return None


def _is_auto(options: TranscribeOptions) -> bool:
    return options.language is not None and options.language.strip().lower() == "auto"


@dataclass(frozen=True)
class DetectedLanguage:
    """A detected language.

    Attributes:
        code: in the model.
        probability: among the model's languages: the mean over the windows that voted.
    """

    code: str
    probability: float


class LanguageVote:
    """Lets the windows of a recording vote on its language, until one language has two votes.

    Windows without speech, such as music or a ring tone, do not reveal the language; they count only if no window has
    speech.
    """

    def __init__(self, info: SpeechInfo, no_speech_threshold: float | None) -> None:
        """Begin without votes.

        Args:
            info: the model's special tokens, with its languages.
            no_speech_threshold: a window with a higher probability that nobody speaks has no speech; None counts all.
        """
        self._codes = list(info.languages)
        self._ids = list(info.languages.values())
        self._no_speech, self._threshold = info.no_speech, no_speech_threshold
        self._speech: list[NDArray[np.float64]] = []
        self._others: list[NDArray[np.float64]] = []

    @property
    def decided(self) -> bool:
        """Whether further windows would change nothing."""
        votes = [int(probabilities.argmax()) for probabilities in self._speech]
        return len(votes) > len(set(votes))

    def add(self, logits: NDArray[np.float32]) -> None:
        """Count a window.

        Args:
            logits: after the start token, float32 (vocab_size,).
        """
        weights = np.exp(logits.astype(np.float64) - logits.max())
        silent = 0.0 if self._no_speech is None else weights[self._no_speech] / weights.sum()
        has_speech = self._threshold is None or silent <= self._threshold
        # Among the languages alone, so that the probabilities of other tokens do not matter.
        odds = np.exp(logits[self._ids].astype(np.float64) - logits[self._ids].max())
        (self._speech if has_speech else self._others).append(odds / odds.sum())

    def result(self) -> DetectedLanguage:
        """Return the language with two votes, or else the most likely one on average. Needs a window."""
        counted = self._speech or self._others
        votes = [int(probabilities.argmax()) for probabilities in counted]
        mean = np.mean(counted, axis=0)
        best = max(range(len(self._codes)), key=lambda place: (self.decided and votes.count(place) > 1, mean[place]))
        return DetectedLanguage(self._codes[best], float(mean[best]))
