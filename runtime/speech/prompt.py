"""Builds the prompt of a speech model: previous text, language, task, and whether to predict timestamps."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.encoder_decoder.source_text import find_language
from triform.runtime.errors import InputError, option
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
            task = self._info.translate if self._options.task == "translate" else self._info.transcribe
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
    """Return the code of the language in the options; None if it is to be detected, or the model has only one.

    Raises:
        InputError: the model does not support the language or the task.
    """
    if info.languages:
        if options.task == "translate" and info.translate is None:
            raise InputError(f"this model cannot translate: leave out {option('task')} translate")
        return None if options.language is None else find_language(options.language, info.languages)
    if options.task == "translate":
        raise InputError(f"this model knows English only and cannot translate: leave out {option('task')} translate")
    if options.language is not None and options.language.strip().lower() not in _ENGLISH:
        raise InputError(f"this model knows English only, not {options.language!r}: leave out {option('language')}")
    return None
