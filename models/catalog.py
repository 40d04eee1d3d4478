"""Decides which models can be exported, by properties of their transformers classes."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

import transformers
from transformers import AutoModelForCausalLM, AutoModelForTextEncoding, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from triform.models.architectures import (
    BOXES,
    BY_TOKEN,
    architecture_of,
    bare_class,
    media_arguments,
    media_read,
    missing_arguments,
    more_than_text,
    takes,
    unsupported_head,
)
from triform.models.encoder.audio_tasks import AUDIO_HEADS, audio_task_of, has_audio_head
from triform.models.encoder.image_tasks import CONTRAST, IMAGE_HEADS, VECTORS, image_task_of
from triform.models.encoder.tasks import HEADS, head_of, task_named
from triform.models.encoder_decoder.kinds import encoder_decoder_kind
from triform.models.errors import UnsupportedModelError
from triform.models.recurrent.replacing import has_known_scan

# Model types with a causal and no masked language model in transformers.
_ONLY_DECODERS = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
WRITE = "text-generation"
_REWRITE = ("text2text-generation", "automatic-speech-recognition", "image-to-text")
# What a tokenizer makes of a text.
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Tasks of heads on encoder-decoders, whose decoders read the text that their encoders read.
_ON_ENCODER_DECODERS = ("text-classification", "question-answering")
# By the names that the hub has for them.
TASKS = tuple(dict.fromkeys((WRITE, *_REWRITE, *HEADS, *IMAGE_HEADS, *AUDIO_HEADS)))
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
    "afmoe", "bamba", "biogpt", "bloom", "dbrx", "deepseek_v2", "deepseek_v3", "falcon", "falcon_h1", "falcon_mamba",
    "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "gpt2", "gpt_neo", "gpt_neox", "gpt_neox_japanese",
    "granite", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "lfm3", "llama", "longcat_flash",
    "mamba", "mamba2", "minicpm3", "minimax", "mistral", "mixtral", "mpt", "nemotron_h", "olmo2", "olmo_hybrid",
    "openai-gpt", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_text", "qwen3_moe", "qwen3_next",
    "recurrent_gemma", "smollm3", "stablelm", "starcoder2", "trocr", "xglm", "zamba2",
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
        UnsupportedModelError: no bundle can do what its head does, or give it what it reads; says which parts of it
            can be exported, and how.
    """
    head = unsupported_head(config)
    if head is not None:
        raise UnsupportedModelError(
            f"{architecture_of(config)} is for {head}, which no bundle does{_without_head(config)}"
        )
    seen_or_heard = image_task_of(config) or audio_task_of(config)
    if seen_or_heard is not None:
        return seen_or_heard
    task = _text_task(config)
    media = media_read(config)
    if media and task not in _REWRITE[1:]:
        name = architecture_of(config) or f"a {config.model_type} model"
        raise UnsupportedModelError(
            f"{name} reads {' and '.join(media)}, which a bundle for {task} cannot be given{_text_part(config, task)}"
        )
    return task


def _text_task(config: PretrainedConfig) -> str:
    architecture = architecture_of(config)
    task = task_named(architecture)
    if task is not None:
        return task
    if getattr(config, "is_encoder_decoder", False) and not architecture.endswith("EncoderModel"):
        return encoder_decoder_kind(config).task
    if architecture == MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(config.model_type):
        # XLM's masked language model is called as a causal one is.
        return "fill-mask"
    if architecture.endswith(_WRITING) or (config.model_type in _ONLY_DECODERS and not architecture.endswith("Model")):
        return WRITE
    return "feature-extraction"


def _without_head(config: PretrainedConfig) -> str:
    """How a checkpoint can be exported without its head, in words; empty where it cannot."""
    bare = bare_class(config)
    if bare is None:
        return ""
    if takes(bare, "input_ids") and not missing_arguments(bare, TEXT_INPUTS):
        return "; --task feature-extraction exports its vectors of texts without that head"
    if media_arguments(bare) == ("images",):
        return f"; --task {VECTORS} exports its vectors of images without that head"
    return ""


def _text_part(config: PretrainedConfig, task: str) -> str:
    """How the part of a checkpoint that reads texts can be exported, in words; empty where it cannot."""
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return f"; --task {WRITE} exports its language model alone"
    loaded = None if task in _REWRITE[1:] or task == WRITE else model_class(config, task)
    if loaded is None or not takes(loaded, "input_ids") or missing_arguments(loaded, TEXT_INPUTS):
        return ""
    if more_than_text(loaded) is not None:
        return ""
    return f"; --task {task} exports what it does with texts alone"


def form_of(config: PretrainedConfig, task: str) -> str:
    """How a checkpoint is exported for a task: as one of the three forms, or as an encoder of images or audio.

    Args:
        config: the checkpoint's.
        task: one of `TASKS`.

    Returns:
        decoder, encoder, encoder-decoder, image or audio.

    Raises:
        UnsupportedModelError: it cannot be done; names the nearest families that are supported.
    """
    if task in IMAGE_HEADS:
        _check_reads(config, task, "pixel_values", "images")
        if task == CONTRAST:
            _check_towers(model_class(config, task), task)
        return "image"
    if has_audio_head(config, task):
        return "audio"
    if task in AUDIO_HEADS and task not in _REWRITE:
        raise UnsupportedModelError(f"transformers has no {config.model_type} model for {task}")
    if task == WRITE:
        check_decoder(config)
        return "decoder"
    if task in _REWRITE:
        if not getattr(config, "is_encoder_decoder", False) or encoder_decoder_kind(config).task != task:
            raise UnsupportedModelError(f"{config.model_type} models are not for {task}")
        return "encoder-decoder"
    loaded = model_class(config, task)
    _check_reads(config, task, "input_ids", "texts")
    _check_text_is_enough(loaded)
    if loaded is not None and takes(loaded, "decoder_input_ids") and task not in _ON_ENCODER_DECODERS:
        raise UnsupportedModelError(f"heads on encoder-decoders, here {loaded.__name__}, are not supported for {task}")
    return "encoder"


def _check_reads(config: PretrainedConfig, task: str, argument: str, what: str) -> None:
    loaded = model_class(config, task)
    if loaded is None and getattr(config, "auto_map", None):
        # The class comes with the checkpoint.
        return
    if loaded is None:
        raise UnsupportedModelError(f"transformers has no {config.model_type} model for {task}")
    if not takes(loaded, argument):
        raise UnsupportedModelError(f"{loaded.__name__} does not read {what}, which {task} needs")


def _check_towers(loaded: Any, task: str) -> None:
    # Such as a class whose head reads an image and a text at once.
    if loaded is not None and not (hasattr(loaded, "get_image_features") and hasattr(loaded, "get_text_features")):
        raise UnsupportedModelError(
            f"{loaded.__name__} does not give an image and a text a vector each to compare, which {task} needs"
        )


def _check_text_is_enough(loaded: Any) -> None:
    # Whether the tokenizer gives what follows from tokens is seen when it is loaded.
    more = more_than_text(loaded, (*BY_TOKEN, BOXES))
    if more is not None:
        raise UnsupportedModelError(f"{loaded.__name__} reads {more} besides its texts, which no bundle can be given")
    missing = missing_arguments(loaded, TEXT_INPUTS)
    if missing:
        raise UnsupportedModelError(f"{loaded.__name__} does not read texts alone: it needs {', '.join(missing)} too")


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
    if has_audio_head(config, task):
        return AUDIO_HEADS[task]
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
    classes = mapping[type(config)] if type(config) in mapping else _named_class(mapping, config)
    if isinstance(classes, list | tuple):
        named = config.architectures or []
        return next((candidate for candidate in classes if candidate.__name__ in named), classes[0])
    return classes


def _named_class(mapping: Any, config: PretrainedConfig) -> Any:
    """The class that a config names, if it is in one of transformers' lists, but beside the config of a whole model.

    Such is the language model of a model of images and text, saved alone (Emu3ForCausalLM).
    """
    named = getattr(transformers, architecture_of(config) or " ", None)
    listed = {
        name for names in mapping._model_mapping.values() for name in ([names] if isinstance(names, str) else names)
    }
    return named if named is not None and named.__name__ in listed and named.config_class is type(config) else None


def check_decoder(config: PretrainedConfig) -> None:
    """Refuse a config whose model is not a causal language model, or carries a state along the text that is unknown.

    Whether its attention and states can be replaced is found by running the model, see `decoder/graph.py`.

    Raises:
        UnsupportedModelError: names similar families that can be exported.
    """
    model_type = config.model_type
    # transformers also lists encoders such as BERT, which can be trained as decoders.
    is_encoder = model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    is_encoder_decoder = getattr(config, "is_encoder_decoder", False)
    causal = class_of(AutoModelForCausalLM, config)
    if is_encoder or is_encoder_decoder or causal is None:
        raise UnsupportedModelError(f"{model_type} models are not supported as decoders; {_nearest(model_type)}")
    if getattr(causal, "_is_stateful", False) and not has_known_scan(causal):
        raise UnsupportedModelError(
            f"{model_type} models carry a state along the text by a recurrence that is not supported; "
            f"{_nearest(model_type)}"
        )


@cache
def _nearest(model_type: str) -> str:
    close = difflib.get_close_matches(model_type, TESTED_DECODERS, n=3, cutoff=0.4) or ["llama", "qwen3", "gpt2"]
    return f"the nearest that are: {', '.join(close)}"
