"""Samples for the encoder of an encoder-decoder: texts, audio or images, as its input arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig

from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.audio import read_audio_info
from triform.export.describe.image import calibration_samples, evaluation_samples, image_info
from triform.export.samples import texts
from triform.export.samples.batches import Sample, SampleSets, padded
from triform.export.samples.voices import synthetic_voice
from triform.models.encoder_decoder.graph import EncoderInputs
from triform.runtime.bundle.media_info import AudioInfo, ImageInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.audio_features import audio_features

# Number of sources for parity, for calibration and for evaluation.
_PARITY, _CALIBRATION, _EVALUATION = 3, 24, 6
_SECONDS = (2.7, 1.3, 4.1)


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


def text_sources(checkpoint: Checkpoint, max_length: int | None) -> Sources:
    """Passages of the texts in `data/`, as token ids."""
    limit = min(max_length or 512, 512)
    size = _vocabulary(checkpoint.model.config)

    def sample(text: str) -> Sample:
        ids = np.array(checkpoint.tokenizer(text)["input_ids"][:limit], np.int64) % size
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    rows = [sample(text) for text in texts.passages("evaluation", 2 * _EVALUATION)]
    calibration = [sample(text) for text in texts.passages("calibration", _CALIBRATION)]
    return Sources(SampleSets(rows[1 : 1 + _PARITY], calibration, rows[1::2]))


def audio_sources(checkpoint: Checkpoint) -> Sources:
    """Synthetic voices, as the feature extractor's arrays.

    Raises:
        ExportError: see `read_audio_info`.
        UnsupportedError: see `read_audio_info`.
    """
    info = read_audio_info(checkpoint.source.model_folder)
    input_name = checkpoint.model.main_input_name
    fixed = info.kind == "log_mel"

    def sample(seconds: float, seed: int) -> Sample:
        features = audio_features(synthetic_voice(seconds, info.sampling_rate, seed), info)
        mask = {} if fixed else {"attention_mask": np.ones(len(features), np.int64)}
        return {input_name: features, **mask}

    rows = [sample(_SECONDS[seed % 3], seed) for seed in range(_PARITY + _EVALUATION)]
    calibration = [sample(8.0, 100 + seed) for seed in range(2 if fixed else 4)]
    samples = SampleSets(rows[:_PARITY], calibration, rows[_PARITY:])
    # An encoder of waveforms normalizes over the whole row, with its padding.
    return Sources(samples, audio=info, can_be_padded=info.kind != "waveform")


def image_sources(checkpoint: Checkpoint) -> Sources:
    """Synthetic images, as the image processor's arrays. Errors as `image_info`."""
    info = image_info(checkpoint.image_processor)
    rows: list[Sample] = [{"pixel_values": pixels} for pixels in evaluation_samples(info, _PARITY + _EVALUATION)]
    calibration: list[Sample] = [{"pixel_values": pixels} for pixels in calibration_samples(info, _CALIBRATION)]
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
