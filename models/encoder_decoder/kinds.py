"""The kinds of encoder-decoders that can be exported: those of texts, of audio and of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import transformers
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)

from triform.models.architectures import media_arguments
from triform.models.errors import UnsupportedModelError


@dataclass(frozen=True)
class Kind:
    """A kind of encoder-decoder.

    Attributes:
        source: what the encoder reads: text, audio or image.
        task: its name on the Hugging Face hub.
        auto_class: loads a checkpoint with its language-model head.
    """

    source: Literal["text", "audio", "image"]
    task: str
    auto_class: Any


_TEXT = Kind("text", "text2text-generation", transformers.AutoModelForSeq2SeqLM)
_PAIR = Kind("text", "text2text-generation", transformers.EncoderDecoderModel)
_AUDIO = Kind("audio", "automatic-speech-recognition", transformers.AutoModelForSpeechSeq2Seq)
_SPOKEN_PAIR = Kind("audio", "automatic-speech-recognition", transformers.SpeechEncoderDecoderModel)
_IMAGE = Kind("image", "image-to-text", transformers.VisionEncoderDecoderModel)


def encoder_decoder_kind(config: PretrainedConfig) -> Kind:
    """What kind of encoder-decoder a checkpoint is, by its model type.

    Raises:
        UnsupportedModelError: transformers has no class that loads it with a language-model head.
    """
    if config.model_type == "vision-encoder-decoder":
        return _IMAGE
    if config.model_type == "encoder-decoder":
        return _PAIR
    if config.model_type == "speech-encoder-decoder":
        return _SPOKEN_PAIR
    if config.model_type in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        if "audio" not in media_arguments(_AUDIO.auto_class._model_mapping[type(config)]):
            raise UnsupportedModelError(f"{config.model_type} models read texts and write sounds, which no bundle does")
        return _AUDIO
    if config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return _TEXT
    raise UnsupportedModelError(f"{config.model_type} models are not supported as encoder-decoders")
