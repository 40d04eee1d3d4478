"""Scores the labels of a model for recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import check_numbers
from triform.runtime.encoder.image_classification import label_scores
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import BundleError, InputError
from triform.runtime.media.audio import Audio, as_samples, open_audio
from triform.runtime.media.audio_features import audio_features
from triform.runtime.media.sound_files import Samples

SOUND_LABELS = "audio-classification"

# The path of a file, its content, an open recording, or samples at the model's rate.
AudioInput = str | Path | bytes | Audio | NDArray[np.float32]


def classify_audio(
    model: OpenEncoder, recordings: Iterable[AudioInput], warn: Callable[[str], None] = lambda _: None
) -> Iterator[list[tuple[str, float]]]:
    """Score every label for each recording, as transformers' audio-classification pipeline does.

    Args:
        model: an audio-classification bundle.
        recordings: any number of paths of files, contents of files, `Audio`, or samples: float32 (samples), one
            channel, at the model's sampling rate. Each is run as a whole; models that read a single length cut it.
            Of a model with positions for less than 30 s none may be longer than these.
        warn: called with a message for a file that is damaged.

    Yields:
        for each recording, (label, score) of every label, the highest score first: probabilities that sum to 1 if one
        label applies; each label's own probability if several may apply; the model's output itself for a regression.

    Raises:
        UnsupportedError: the bundle is for another task, or a package that reads audio files is missing.
        BundleError: the manifest does not describe the input or the labels' scores.
        InputError: a recording cannot be read, or is too short or too long.
        TriformError: onnxruntime failed.
    """
    model.require("classify-audio", SOUND_LABELS)
    info = model.info.audio
    if info is None:
        raise BundleError("the bundle does not say how it reads audio; export the model again")
    for recording in recordings:
        samples = _samples(recording, info.sampling_rate, warn)
        features = audio_features(samples, info) if len(samples) else samples
        if len(features) < model.info.min_length:
            raise InputError(
                f"a recording of {len(samples) / info.sampling_rate:.3f} s is too short for this model; leave it out"
            )
        if info.reads_less and len(samples) > info.longest * info.sampling_rate:
            raise InputError(
                f"a recording of {len(samples) / info.sampling_rate:.1f} s is longer than the {info.longest:g} s that "
                "this model has positions for; cut it"
            )
        (logits,) = model.step.feed(dict.fromkeys(model.step.inputs, features[None]), ["logits"])
        check_numbers([logits])
        yield label_scores(model, logits[0])


def _samples(recording: AudioInput, rate: int, warn: Callable[[str], None]) -> Samples:
    if isinstance(recording, np.ndarray):
        return as_samples(recording)
    if isinstance(recording, Audio):
        return _joined(recording, rate)
    with open_audio(recording, warn) as audio:
        return _joined(audio, rate)


def _joined(audio: Audio, rate: int) -> Samples:
    return np.concatenate([np.zeros(0, np.float32), *audio.blocks(rate)])
