"""What the encoder of an encoder-decoder is tried with: texts, sounds or pictures, as the model is given them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.audio import read_audio_info
from triform.export.describe.image import calibration_samples, check_pixel_values, evaluation_samples, image_info
from triform.export.samples import texts
from triform.export.samples.batches import Sample, together
from triform.export.samples.voices import voice
from triform.models.encoder_decoder.graph import Source
from triform.runtime.bundle.media_info import AudioInfo, ImageInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.audio_features import audio_features

# Sources compared with PyTorch, calibrated on, and compared with the quantized graphs.
_PARITY, _CALIBRATION, _COMPARED = 3, 24, 6
_SECONDS = (2.7, 1.3, 4.1)


@dataclass(frozen=True)
class Sources:
    """Inputs of an encoder.

    Attributes:
        parity: to compare with PyTorch; of different lengths where lengths differ.
        calibration: to calibrate on.
        compared: to compare the quantized graphs on.
        audio: how sound became inputs.
        image: how pictures did.
        padded: whether sources of different lengths can be put together by padding, without changing anything.
    """

    parity: list[Sample]
    calibration: list[Sample]
    compared: list[Sample]
    audio: AudioInfo | None = None
    image: ImageInfo | None = None
    padded: bool = True


def text_sources(checkpoint: Checkpoint, max_length: int | None) -> Sources:
    """Passages of the texts shipped with the exporter, as the tokenizer reads them."""
    limit = min(max_length or 512, 512)
    size = _vocabulary(checkpoint.model.config)

    def sample(text: str) -> Sample:
        ids = np.array(checkpoint.tokenizer(text)["input_ids"][:limit], np.int64) % size
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    rows = [sample(text) for text in texts.passages("evaluation", 2 * _COMPARED)]
    calibration = [sample(text) for text in texts.passages("calibration", _CALIBRATION)]
    return Sources(rows[1 : 1 + _PARITY], calibration, rows[1::2])


def audio_sources(checkpoint: Checkpoint) -> Sources:
    """Made-up voices, as the feature extractor hears them.

    Raises:
        ExportError: see `read_audio_info`.
        UnsupportedError: see `read_audio_info`.
    """
    info = read_audio_info(checkpoint.source.model_folder)
    named = checkpoint.model.main_input_name
    fixed = info.kind == "log_mel"

    def sample(seconds: float, seed: int) -> Sample:
        features = audio_features(voice(seconds, info.sampling_rate, seed), info)
        mask = {} if fixed else {"attention_mask": np.ones(len(features), np.int64)}
        return {named: features, **mask}

    rows = [sample(_SECONDS[seed % 3], seed) for seed in range(_PARITY + _COMPARED)]
    calibration = [sample(8.0, 100 + seed) for seed in range(2 if fixed else 4)]
    # A waveform's encoder normalizes over all of its row, padding included.
    return Sources(rows[:_PARITY], calibration, rows[_PARITY:], audio=info, padded=info.kind != "waveform")


def image_sources(checkpoint: Checkpoint) -> Sources:
    """Made-up pictures, as the image processor sees them."""
    info = image_info(checkpoint.image_processor)
    check_pixel_values(checkpoint.image_processor, info)
    rows: list[Sample] = [{"pixel_values": one} for one in evaluation_samples(info, _PARITY + _COMPARED)]
    calibration: list[Sample] = [{"pixel_values": one} for one in calibration_samples(info, _CALIBRATION)]
    return Sources(rows[:_PARITY], calibration, rows[_PARITY:], image=info)


def traced_source(sources: Sources, pad: int) -> Source:
    """The example to trace an encoder with: two sources of different lengths."""
    batch = together(sources.parity[:2], pad)
    lengths = [len(sample[name]) for name in batch for sample in sources.parity]
    axes = {}
    for name, array in batch.items():
        varies = len(set(lengths)) > 1 and name != "pixel_values" and array.shape[1] == max(lengths[:2])
        axes[name] = ((0, "batch"), (1, "length")) if varies else ((0, "batch"),)
    return Source({name: torch.from_numpy(array) for name, array in batch.items()}, axes)


def _vocabulary(config: Any) -> int:
    """Tokens that an encoder knows, which may be another number than its decoder's."""
    known = getattr(config, "src_vocab_size", None) or config.get_text_config(encoder=True).vocab_size
    if not isinstance(known, int):
        raise UnsupportedError(f"{config.model_type} models do not say how many tokens they know")
    return known
