"""Word and character error rates of speech models."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from triform.runtime.errors import InputError
from triform.runtime.evaluation.measurement import Measurement, ratio
from triform.runtime.extras import missing_extra
from triform.runtime.media.audio import open_audio
from triform.runtime.speech.model import CtcModel, SpeechModel
from triform.runtime.speech.options import TranscribeOptions


def evaluate_speech(
    model: SpeechModel | CtcModel,
    recordings: Sequence[str],
    transcripts: Sequence[str],
    options: TranscribeOptions,
    *,
    exact: bool,
) -> Measurement:
    """Compare transcriptions with what is said, word by word and character by character.

    Args:
        model: a speech model.
        recordings: paths of audio files.
        transcripts: for each recording what is said.
        options: how to transcribe.
        exact: whether case and punctuation count, see `spoken_words`.

    Returns:
        the rates over all recordings: substitutions, insertions and deletions, divided by the length of the
        transcripts. They can exceed 1.

    Raises:
        InputError: a recording cannot be read, or is damaged.
        UnsupportedError: a package is missing.
    """
    heard = (_heard(model, name, options) for name in recordings)
    rows = np.array(error_counts(transcripts, heard, exact=exact), np.float64).reshape(-1, 4)
    return Measurement(rows, -rows[:, 0], (ratio("WER", 0, 1), ratio("CER", 2, 3)), "recordings")


def _heard(model: SpeechModel | CtcModel, name: str, options: TranscribeOptions) -> str:
    with open_audio(name, _refuse) as audio:
        return "".join(segment.text for segment in model.transcribe(audio, options))


def _refuse(warning: str) -> None:
    raise InputError(f"{warning}; a part of a recording cannot be compared with its whole transcript")


def error_counts(references: Sequence[str], hypotheses: Iterable[str], *, exact: bool) -> list[list[int]]:
    """For each text: wrong words, words of the reference, wrong characters, characters of the reference.

    Raises:
        UnsupportedError: jiwer is not installed.
    """
    try:
        import jiwer
    except ImportError:
        raise missing_extra("error rates need jiwer", "evaluate") from None
    counts = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        pair = (reference, hypothesis) if exact else (spoken_words(reference), spoken_words(hypothesis))
        row: list[int] = []
        for result in (jiwer.process_words(*pair), jiwer.process_characters(*pair)):
            edits = result.substitutions + result.insertions + result.deletions
            row += [edits, result.hits + result.substitutions + result.deletions]
        counts.append(row)
    return counts


def spoken_words(text: str) -> str:
    """What can be heard of a text: in lower case (NFKC), apostrophes removed, other punctuation and symbols as spaces.

    Marks stay, because scripts such as Devanagari write vowels with them.
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    return " ".join("".join(" " if unicodedata.category(char)[0] in "PS" else char for char in plain).split())
