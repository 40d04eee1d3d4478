"""Decides which models can be exported, by properties of their transformers classes."""

from __future__ import annotations

import difflib
import inspect
from functools import cache
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForTextEncoding, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from triform.models.encoder.image_tasks import IMAGE_HEADS, image_task_of
from triform.models.encoder.tasks import HEADS, head_of, task_named
from triform.models.encoder_decoder.kinds import encoder_decoder_kind
from triform.models.errors import UnsupportedModelError

# Model types with a causal and no masked language model in transformers.
_ONLY_DECODERS = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
WRITE = "text-generation"
_REWRITE = ("text2text-generation", "automatic-speech-recognition", "image-to-text")
# By the names that the hub has for them.
TASKS = (WRITE, *_REWRITE, *HEADS, *IMAGE_HEADS)
# What the hub, optimum or transformers' pipelines call the same.
_SYNONYMS = {
    "conversational": WRITE,
    "translation": "text2text-generation",
    "summarization": "text2text-generation",
    "sentence-similarity": "feature-extraction",
    "text-ranking": "text-classification",
    "zero-shot-classification": "text-classification",
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
}
# How transformers' classes are called that write text after text.
_WRITING = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel")
# Families compared with transformers, number for number, in the tests.
TESTED_DECODERS = (
    "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "mixtral", "olmo2", "opt", "phi",
    "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip


def task_called(name: str) -> str:
    """The task that a user names, by any of its names on the Hugging Face hub.

    Raises:
        UnsupportedModelError: it is not supported.
    """
    task = _SYNONYMS.get("translation" if name.startswith("translation_") else name, name)
    if task not in TASKS:
        raise UnsupportedModelError(f"no task is called {name}; there are: {', '.join((*TASKS, *_SYNONYMS))}")
    return task


def named_task(config: PretrainedConfig) -> str:
    """The task a checkpoint was trained for, by the class that its config names, or by its type where it names none.

    Raises:
        UnsupportedModelError: an encoder-decoder whose type is not supported.
    """
    seen = image_task_of(config)
    if seen is not None:
        return seen
    architecture = (config.architectures or [""])[0]
    task = task_named(architecture)
    if task is not None:
        return task
    if getattr(config, "is_encoder_decoder", False) and not architecture.endswith("EncoderModel"):
        return encoder_decoder_kind(config).task
    if architecture.endswith(_WRITING) or (config.model_type in _ONLY_DECODERS and not architecture.endswith("Model")):
        return WRITE
    return "feature-extraction"


def form_of(config: PretrainedConfig, task: str) -> str:
    """How a checkpoint is exported for a task: as one of the three forms, or as an encoder of images.

    Args:
        config: the checkpoint's.
        task: one of `TASKS`.

    Returns:
        decoder, encoder, encoder-decoder or image.

    Raises:
        UnsupportedModelError: it cannot be done; names the nearest families that are supported.
    """
    if task in IMAGE_HEADS:
        return "image"
    if task == WRITE:
        check_decoder(config)
        return "decoder"
    if task in _REWRITE:
        if not getattr(config, "is_encoder_decoder", False) or encoder_decoder_kind(config).task != task:
            raise UnsupportedModelError(f"{config.model_type} models are not for {task}")
        return "encoder-decoder"
    loaded = model_class(config, task)
    if loaded is not None and "decoder_input_ids" in inspect.signature(loaded.forward).parameters:
        raise UnsupportedModelError(f"heads on encoder-decoders, here {loaded.__name__}, are not supported for {task}")
    return "encoder"


def auto_class(config: PretrainedConfig, task: str) -> Any:
    """The class of transformers that loads any model for a task.

    Args:
        config: the checkpoint's.
        task: one of `TASKS`.

    Raises:
        UnsupportedModelError: an encoder-decoder whose type is not supported.
    """
    if task in IMAGE_HEADS:
        return IMAGE_HEADS[task]
    if task == WRITE:
        return AutoModelForCausalLM
    if task in _REWRITE:
        return encoder_decoder_kind(config).auto_class
    if task == "feature-extraction" and getattr(config, "is_encoder_decoder", False):
        return AutoModelForTextEncoding
    return head_of(task).auto_class


def model_class(config: PretrainedConfig, task: str) -> Any:
    """The class of transformers that loads a model of a config for a task; None where it has none. As `auto_class`."""
    return class_of(auto_class(config, task), config)


def class_of(auto_class: Any, config: PretrainedConfig) -> Any:
    """The class that one of transformers' auto classes takes for a config; None where it has none."""
    mapping = getattr(auto_class, "_model_mapping", None)
    if mapping is None:
        return auto_class
    found = mapping[type(config)] if type(config) in mapping else None
    if isinstance(found, list | tuple):
        named = config.architectures or []
        return next((one for one in found if one.__name__ in named), found[0])
    return found


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


@cache
def _nearest(model_type: str) -> str:
    close = difflib.get_close_matches(model_type, TESTED_DECODERS, n=3, cutoff=0.4) or ["llama", "qwen3", "gpt2"]
    return f"the nearest that are: {', '.join(close)}"
