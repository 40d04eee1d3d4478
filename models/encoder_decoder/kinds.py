"""Which encoder-decoders can be exported, by what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import transformers
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)

from triform.models.errors import UnsupportedModelError


@dataclass(frozen=True)
class Kind:
    """What an encoder-decoder reads.

    Attributes:
        source: text, audio or image.
        task: in the Hugging Face hub's terms.
        auto_class: loads it with its language-model head.
    """

    source: Literal["text", "audio", "image"]
    task: str
    auto_class: Any


_TEXT = Kind("text", "text2text-generation", transformers.AutoModelForSeq2SeqLM)
_AUDIO = Kind("audio", "automatic-speech-recognition", transformers.AutoModelForSpeechSeq2Seq)
_IMAGE = Kind("image", "image-to-text", transformers.VisionEncoderDecoderModel)


def encoder_decoder_kind(config: PretrainedConfig) -> Kind:
    """What kind of encoder-decoder a checkpoint is, by its model type.

    Raises:
        UnsupportedModelError: transformers has no class that loads it with a language-model head.
    """
    if config.model_type == "vision-encoder-decoder":
        return _IMAGE
    if config.model_type in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        return _AUDIO
    if config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return _TEXT
    raise UnsupportedModelError(f"{config.model_type} models are not supported as encoder-decoders")
