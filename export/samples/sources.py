"""Samples for the encoder of an encoder-decoder: texts, audio or images, as its input arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig

from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.audio import read_audio_info
from triform.export.describe.image import calibration_samples, evaluation_samples, image_info
from triform.export.samples import texts
from triform.export.samples.batches import Sample, SampleSets, padded
from triform.export.samples.own import calibration_text, recordings
from triform.export.samples.voices import noise, speech
from triform.models.encoder_decoder.audio import audio_input, length_multiple
from triform.models.encoder_decoder.graph import EncoderInputs
from triform.runtime.bundle.media_info import AudioInfo, ImageInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.audio_features import audio_features

# Number of sources for parity, for calibration and for evaluation.
_PARITY, _CALIBRATION, _EVALUATION = 3, 24, 6
_SECONDS = (2.7, 1.3, 4.1)
# What is calibrated on, in seconds: between a word and the thirty seconds that Whisper hears at once, and a pause.
_SPOKEN, _NOISE_SECONDS = (3.0, 8.0, 14.0, 20.0, 29.0), 5.0


@dataclass(frozen=True)
class Sources:
    """Inputs of an encoder.

    Attributes:
        samples: by purpose.
        audio: how audio becomes arrays; None for other sources.
        image: how images become arrays; None for other sources.
        can_be_padded: whether padding sources of different lengths in a batch leaves their results unchanged.
    """

    samples: SampleSets
    audio: AudioInfo | None = None
    image: ImageInfo | None = None
    can_be_padded: bool = True


def text_sources(checkpoint: Checkpoint, max_length: int | None, calibrate: Sequence[str]) -> Sources:
    """Passages of the texts in `data/`, and of the files to calibrate on if any are named, as token ids.

    Raises:
        InputError: see `calibration_text`.
    """
    limit = min(max_length or 512, 512)
    size = _vocabulary(checkpoint.model.config)

    def sample(text: str) -> Sample:
        ids = np.array(checkpoint.tokenizer(text)["input_ids"][:limit], np.int64) % size
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    rows = [sample(text) for text in texts.passages("evaluation", 2 * _EVALUATION)]
    calibration = [sample(text) for text in texts.spread_passages(calibration_text(calibrate), _CALIBRATION)]
    return Sources(SampleSets(rows[1 : 1 + _PARITY], calibration, rows[1::2]))


def audio_sources(checkpoint: Checkpoint, calibrate: Sequence[str]) -> Sources:
    """Speech in many languages, or the recordings to calibrate on if any are named, as the feature extractor's arrays.

    Raises:
        ExportError: see `read_audio_info`.
        InputError: see `recordings`.
        UnsupportedError: see `read_audio_info` and `speech`.
    """
    info = read_audio_info(checkpoint.source.model_folder)
    if info.kind == "waveform":
        info = replace(info, multiple=length_multiple(checkpoint.model, info.sampling_rate))
    input_name = audio_input(checkpoint.model)
    fixed = info.kind == "log_mel"
    # What lies behind the length that a model hears at once it hears in another window.
    longest = None if info.chunk_length is None else info.chunk_length * info.sampling_rate

    def sample(audio: NDArray[np.float32]) -> Sample:
        heard = audio[:longest]
        features = audio_features(heard[: len(heard) // info.multiple * info.multiple], info)
        mask = {} if fixed else {"attention_mask": np.ones(len(features), np.int64)}
        return {input_name: features, **mask}

    rate = info.sampling_rate
    rows = [sample(speech("evaluation", _SECONDS[seed % 3], rate, seed)) for seed in range(_PARITY + _EVALUATION)]
    spoken = [speech("calibration", seconds, rate, seed) for seed, seconds in enumerate(_SPOKEN)]
    heard = recordings(calibrate, rate) if calibrate else [*spoken, noise(_NOISE_SECONDS, rate, 0)]
    calibration = [sample(audio) for audio in heard]
    samples = SampleSets(rows[:_PARITY], calibration, rows[_PARITY:])
    # An encoder of waveforms normalizes over the whole row, with its padding.
    return Sources(samples, audio=info, can_be_padded=info.kind != "waveform")


def image_sources(checkpoint: Checkpoint) -> Sources:
    """Synthetic images, as the image processor's arrays. Errors as `image_info`."""
    info = image_info(checkpoint.image_processor)
    if info.patches is not None:
        raise UnsupportedError("it reads images as patches, which is supported for encoders only")
    rows, calibration = evaluation_samples(info, _PARITY + _EVALUATION), calibration_samples(info, _CALIBRATION)
    return Sources(SampleSets(rows[:_PARITY], calibration, rows[_PARITY:]), image=info)


def example_inputs(sources: Sources, pad: int) -> EncoderInputs:
    """The inputs to trace an encoder with: two sources, of different lengths where lengths can differ."""
    parity = sources.samples.parity
    batch = padded(parity[:2], pad)
    lengths = [len(sample[name]) for name in batch for sample in parity]
    axes = {}
    for name, array in batch.items():
        varies = len(set(lengths)) > 1 and name != "pixel_values" and array.shape[1] == max(lengths[:2])
        axes[name] = ((0, "batch"), (1, "length")) if varies else ((0, "batch"),)
    return EncoderInputs({name: torch.from_numpy(array) for name, array in batch.items()}, axes)


def encoder_config(config: PretrainedConfig) -> Any:
    """The part of a config that describes the encoder: for a model of two others, the first one's config."""
    text = config.get_text_config(encoder=True)
    return text if hasattr(text, "vocab_size") else getattr(config, "encoder", text)


def _vocabulary(config: Any) -> int:
    """Number of tokens in the encoder's vocabulary, which may differ from the decoder's."""
    size = getattr(config, "src_vocab_size", None) or encoder_config(config).vocab_size
    if not isinstance(size, int):
        raise UnsupportedError(f"{config.model_type} models do not say how many tokens they have")
    return size
