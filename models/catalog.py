"""Decides which models can be exported, by properties of their transformers classes."""

from __future__ import annotations

import difflib
from functools import cache

from optimum.exporters.tasks import TasksManager
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from triform.models.encoder.image_tasks import IMAGE_HEADS, image_task_of
from triform.models.encoder.static import StaticConfig
from triform.models.encoder.tasks import head_of
from triform.models.encoder_decoder.kinds import encoder_decoder_kind
from triform.models.errors import UnsupportedModelError

# Model types with a causal and no masked language model in transformers.
_ONLY_DECODERS = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
# Families whose results are compared with transformers in the tests.
TESTED_DECODERS = (
    "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "mixtral", "olmo2", "opt", "phi",
    "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip


def form_of(config: PretrainedConfig, task: str | None = None) -> str:
    """How to export a checkpoint: as one of the three forms, or as an encoder of images or of static embeddings.

    Args:
        config: the checkpoint's.
        task: an encoder's task, if the user names one.

    Returns:
        decoder, encoder, encoder-decoder, image or static.

    Raises:
        UnsupportedModelError: it cannot be exported; names similar families that can.
    """
    if isinstance(config, StaticConfig):
        return "static"
    if task in IMAGE_HEADS or (task is None and image_task_of(config) is not None):
        return "image"
    if task is not None:
        head_of(task)
        return "encoder"
    architecture = (config.architectures or [""])[0]
    generates = architecture.endswith(("ForCausalLM", "LMHeadModel")) or config.model_type in _ONLY_DECODERS
    if getattr(config, "is_encoder_decoder", False) and not architecture.endswith("EncoderModel"):
        encoder_decoder_kind(config)
        return "encoder-decoder"
    if not generates:
        return "encoder"
    check_decoder(config)
    return "decoder"


def check_decoder(config: PretrainedConfig) -> None:
    """Refuse a config whose model is not a causal language model that uses transformers' AttentionInterface.

    Raises:
        UnsupportedModelError: names similar families that can be exported.
    """
    model_type = config.model_type
    # transformers also lists encoders such as BERT, which can be trained as decoders.
    is_encoder = model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    is_encoder_decoder = getattr(config, "is_encoder_decoder", False)
    if is_encoder or is_encoder_decoder or model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnsupportedModelError(f"{model_type} models are not supported as decoders; {_nearest(model_type)}")
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if not getattr(architecture, "_supports_attention_backend", False):
        raise UnsupportedModelError(
            f"{model_type} models do their attention in a way that cannot be exported; {_nearest(model_type)}"
        )


def decoder_task() -> str:
    """The task of a decoder, by its name on the Hugging Face hub."""
    return TasksManager.map_from_synonym("causal-lm")


@cache
def _nearest(model_type: str) -> str:
    close = difflib.get_close_matches(model_type, TESTED_DECODERS, n=3, cutoff=0.4) or ["llama", "qwen3", "gpt2"]
    return f"the nearest that are: {', '.join(close)}"
