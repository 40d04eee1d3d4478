"""Describes transformers' feature extractor of a checkpoint by what the runtime can do too."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.export.checkpoint.processors import settings_named
from triform.models.errors import first_line
from triform.runtime.bundle.media_info import AudioInfo, DeltasInfo, MelInfo
from triform.runtime.errors import ExportError, UnsupportedError
from triform.runtime.media.audio_features import audio_features

# Kaldi's frames of 25 ms every 10 ms, in samples at the only rate of transformers' numpy implementation.
_KALDI_RATE, _KALDI_FRAME, _KALDI_HOP, _KALDI_FFT = 16000, 400, 160, 512
# Rounding of float32 in transformers' torch implementation, which runs where torch is installed.
_TOLERANCE = 1e-4


def read_audio_info(folder: str | Path) -> AudioInfo:
    """Describe the feature extractor of a checkpoint's folder, and check that the runtime computes the same.

    Raises:
        ExportError: there is none, a setting is none that features can be computed with, or it computes something else.
        UnsupportedError: the runtime does not know its kind.
    """
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except ImportError as error:  # of a package that only some extractors need, such as torchaudio
        raise ExportError(f"the feature extractor of {folder} needs another package: {_to_install(error)}") from error
    except Exception as error:  # transformers raises whatever its readers raise
        raise ExportError(f"{folder} has no usable preprocessor_config.json: {first_line(error)}") from error
    with settings_named(extractor):
        info = audio_info(extractor)
        if info.sampling_rate <= 0:
            raise ValueError(f"sampling_rate is {info.sampling_rate}")
        check_audio_features(extractor, info)
    return info


def audio_info(extractor: Any) -> AudioInfo:
    """Describe a feature extractor.

    Args:
        extractor: of transformers: Whisper's, Speech2Text's, or Wav2Vec2's, which is Moonshine's too.

    Raises:
        UnsupportedError: it is another, or has a setting that the runtime does not support.
    """
    name = type(extractor).__name__
    if name not in _READERS:
        raise UnsupportedError(f"the feature extractor {name} is not supported, only {', '.join(_READERS)}")
    info = _READERS[name](extractor)
    if not _below_floor(getattr(extractor, "dither", 0.0), info):
        # A remedy for digital silence in training; it would make transcriptions differ from run to run.
        raise UnsupportedError(f"the feature extractor {name} adds noise (dither {extractor.dither}): set dither to 0")
    return info


def _below_floor(dither: float, info: AudioInfo) -> bool:
    """Whether the energy of added noise is lost beside what is added to the energy of every band anyway."""
    floor = info.mel.floor if info.mel is not None and info.mel.floor_added else 0.0
    # The weights of a filter add up to less than 1, and the window weighs a sample by at most 1.
    return info.win_length * dither**2 <= floor


def check_audio_features(extractor: Any, info: AudioInfo) -> None:
    """Compare the runtime's features with the extractor's, for noise as loud as speech.

    Raises:
        ExportError: they differ.
    """
    samples = np.random.default_rng(0).normal(0, 0.1, info.sampling_rate).astype(np.float32)
    features = audio_features(samples, info)
    try:
        outputs = _without_noise(extractor)(samples, sampling_rate=info.sampling_rate, return_tensors="pt")
        expected: NDArray[Any] = np.asarray(outputs[extractor.model_input_names[0]][0])
        if info.kind == "waveform" and expected.ndim > 1:
            # The channel, which the graph adds.
            expected = expected[0]
        mask = np.asarray(outputs.get("attention_mask", [[]])[0]).astype(bool)
        # A frame of padding at the end, which the model does not see.
        expected = expected[mask] if len(mask) == len(expected) else expected
    except Exception as error:  # each extractor raises its own
        raise ExportError(f"the feature extractor {_name(extractor)} failed: {first_line(error)}") from error
    if expected.shape != features.shape:
        raise ExportError(
            f"the feature extractor {_name(extractor)} gives features of shape {expected.shape}, not {features.shape}; "
            "what it does is not supported"
        )
    worst = float(np.abs(features - expected).max())
    # Written so that NaN fails.
    if not worst <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"the feature extractor {_name(extractor)} does more than its settings say: features differ by {worst:.1e}"
        )


def _to_install(error: ImportError) -> str:
    """What to install, by transformers' message; its first line where that says something else."""
    names = re.findall(r"requires the (\w+) library", str(error))
    return f"pip install {' '.join(names)}" if names else first_line(error)


def _without_noise(extractor: Any) -> Any:
    if not getattr(extractor, "dither", 0.0):
        return extractor
    quiet = copy(extractor)
    quiet.dither = 0.0
    return quiet


def _whisper(extractor: Any) -> AudioInfo:
    return AudioInfo(
        kind="log_mel",
        sampling_rate=int(extractor.sampling_rate),
        feature_size=int(extractor.feature_size),
        padding_value=float(extractor.padding_value),
        chunk_length=int(extractor.chunk_length),
        win_length=int(extractor.n_fft),
        n_fft=int(extractor.n_fft),
        hop_length=int(extractor.hop_length),
    )


def _kaldi(extractor: Any) -> AudioInfo:
    """The mel bands of Kaldi, which several extractors compute.

    Raises:
        UnsupportedError: the extractor takes another number of samples a second.
    """
    if extractor.sampling_rate != _KALDI_RATE:
        raise UnsupportedError(
            f"the feature extractor {_name(extractor)} takes {extractor.sampling_rate} samples a second, "
            f"which is supported for {_KALDI_RATE} only"
        )
    return AudioInfo(
        kind="fbank",
        sampling_rate=_KALDI_RATE,
        feature_size=int(extractor.num_mel_bins),
        padding_value=0.0,
        win_length=_KALDI_FRAME,
        n_fft=_KALDI_FFT,
        hop_length=_KALDI_HOP,
    )


def _speech_to_text(extractor: Any) -> AudioInfo:
    normalizes = bool(extractor.do_ceptral_normalize)
    return replace(
        _kaldi(extractor),
        padding_value=float(extractor.padding_value),
        normalize_means=normalizes and bool(extractor.normalize_means),
        normalize_vars=normalizes and bool(extractor.normalize_vars),
    )


def _wav2vec2(extractor: Any) -> AudioInfo:
    return AudioInfo(
        kind="waveform",
        sampling_rate=int(extractor.sampling_rate),
        feature_size=1,
        padding_value=float(extractor.padding_value),
        normalize_means=bool(extractor.do_normalize),
        normalize_vars=bool(extractor.do_normalize),
    )


def _seamless(extractor: Any) -> AudioInfo:
    return replace(
        _kaldi(extractor),
        padding_value=float(extractor.padding_value),
        normalize_means=True,
        normalize_vars=True,
        sample_variance=True,
        variance_floor=1e-7,
        stacked=int(extractor.stride),
    )


def _ast(extractor: Any) -> AudioInfo:
    normalizes = bool(extractor.do_normalize)
    return replace(
        _kaldi(extractor),
        window="hann",
        scale=1.0,
        length=int(extractor.max_length),
        mean=float(extractor.mean) if normalizes else 0.0,
        deviation=2 * float(extractor.std) if normalizes else 1.0,
    )


def _parakeet(extractor: Any) -> AudioInfo:
    return AudioInfo(
        kind="mel",
        sampling_rate=int(extractor.sampling_rate),
        feature_size=int(extractor.feature_size),
        padding_value=0.0,
        win_length=int(extractor.win_length),
        n_fft=int(extractor.n_fft),
        hop_length=int(extractor.hop_length),
        normalize_means=True,
        normalize_vars=True,
        sample_variance=True,
        deviation_floor=1e-5,
        mel=MelInfo(
            "slaney", 0.0, extractor.sampling_rate / 2, float(extractor.preemphasis or 0), True, 2.0**-24, True
        ),
    )


def _omniasr(extractor: Any) -> AudioInfo:
    return replace(_wav2vec2(extractor), variance_floor=1e-5)


def _lasr(extractor: Any) -> AudioInfo:
    return AudioInfo(
        kind="mel",
        sampling_rate=int(extractor.sampling_rate),
        feature_size=int(extractor.feature_size),
        padding_value=0.0,
        win_length=int(extractor.win_length),
        n_fft=int(extractor.n_fft),
        hop_length=int(extractor.hop_length),
        mel=MelInfo("htk", 125.0, 7500.0, 0.0, False, 1e-5, False),
    )


def _granite_speech(extractor: Any) -> AudioInfo:
    return AudioInfo(
        kind="mel_deltas",
        sampling_rate=int(extractor.sampling_rate),
        feature_size=int(extractor.num_mel_bins),
        padding_value=0.0,
        win_length=int(extractor.win_length),
        n_fft=int(extractor.n_fft),
        hop_length=int(extractor.hop_length),
        stacked=int(extractor.frame_stacking),
        deltas=DeltasInfo((int(extractor.delta_win_length) - 1) // 2, float(extractor.logmel_floor_db)),
    )


_READERS = {
    "WhisperFeatureExtractor": _whisper,
    "Speech2TextFeatureExtractor": _speech_to_text,
    "Wav2Vec2FeatureExtractor": _wav2vec2,
    "SeamlessM4TFeatureExtractor": _seamless,
    "ASTFeatureExtractor": _ast,
    "ParakeetFeatureExtractor": _parakeet,
    "CohereAsrFeatureExtractor": _parakeet,
    "LasrFeatureExtractor": _lasr,
    "GraniteSpeech5FeatureExtractor": _granite_speech,
    "OmniASRFeatureExtractor": _omniasr,
    "SpeechT5FeatureExtractor": _wav2vec2,
}


def _name(extractor: Any) -> str:
    return type(extractor).__name__
