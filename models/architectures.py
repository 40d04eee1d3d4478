"""Tells what a class of transformers is for and what it reads, from transformers' own lists and signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import transformers
from transformers import PretrainedConfig
from transformers.models.auto import modeling_auto

# Lists whose classes can be exported, and lists that say nothing about a class's head.
_SUPPORTED = (
    "CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "SEQUENCE_CLASSIFICATION",
    "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING", "NEXT_SENTENCE_PREDICTION", "IMAGE_CLASSIFICATION",
    "ZERO_SHOT_IMAGE_CLASSIFICATION", "TEXT_ENCODING", "IMAGE", "CTC", "AUDIO_CLASSIFICATION",
)  # fmt: skip
_WITHOUT_HEAD = ("PRETRAINING", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM")
# The part of a class's name that says what its head is for; MaskFormerModel has none.
_HEAD = re.compile("For[A-Z].*")
_PREFIX, _SUFFIX = "MODEL_FOR_", "_MAPPING_NAMES"
# What the names of transformers' lists mean, where they do not say it.
_WORDS = {
    "RNNT": "speech recognition by RNN-T", "TDT": "speech recognition by TDT",
    "AUDIO_XVECTOR": "speaker verification", "BACKBONE": "feeding another model", "DECISION": "choosing actions",
    "RETRIEVAL": "retrieval with a vector for each token",
}  # fmt: skip
# Arguments of `forward` that hold images or audio, by a part of their names.
_MEDIA = {
    "pixel_values": "images", "image_patches": "images", "flattened_patches": "images",
    "input_features": "audio", "input_values": "audio", "audio_values": "audio",
}  # fmt: skip
# The argument that holds the box of each token's word.
BOXES = "bbox"
# Arguments that say more of each token than its id, and that a text alone does not have.
_MORE_THAN_TEXT = {
    BOXES: "the place of each word on its page",
    "xpath_tags_seq": "the place of each word in its HTML",
    "input_shape_ids": "the shape of each character",
    "visual_feats": "what is seen in an image",
    "visual_embeds": "what is seen in an image",
    "protein_input_ids": "a protein",
    "audio_input_ids": "sounds",
    "audio_latents": "sounds",
}


# Of these, what a tokenizer can give by a token's id alone.
BY_TOKEN = ("input_shape_ids",)


def architecture_of(config: PretrainedConfig) -> str:
    """The name of the class that a checkpoint was saved from; empty where its config does not say."""
    return (config.architectures or [""])[0]


def unsupported_head(config: PretrainedConfig) -> str | None:
    """What the head of a checkpoint's class does, if no form of bundle has such a head; None for any other class."""
    architecture = architecture_of(config)
    if architecture in _heads((*_SUPPORTED, "PRETRAINING")):
        return None
    other = _other_heads().get(architecture)
    named = _HEAD.search(architecture)
    if other is None and named is not None and hasattr(transformers, architecture):
        return None if architecture in _heads(_WITHOUT_HEAD) else _own_task(named[0])
    return other


def _own_task(head: str) -> str:
    """What a head in none of transformers' lists is for, by its name, such as ForMaskedImageModeling."""
    if any(architecture.endswith(head) for architecture in _heads(_SUPPORTED)):
        # Such a head does something else in this class than in all others.
        return "a task of its own"
    return " ".join(re.findall("[A-Z][a-z]+|[A-Z]+", head.removeprefix("For"))).lower()


def media_read(config: PretrainedConfig) -> tuple[str, ...]:
    """Of images and audio, those that the class of a checkpoint reads.

    Of a checkpoint that names no class of transformers, those that its type's model without a head reads.
    """
    named = getattr(transformers, architecture_of(config) or " ", None)
    return media_arguments(named or bare_class(config))


def bare_class(config: PretrainedConfig) -> Any:
    """The class of a config's model without a head; None where transformers has none."""
    classes = transformers.MODEL_MAPPING.get(type(config), None)
    return classes[0] if isinstance(classes, list | tuple) else classes


def media_arguments(model_class: Any) -> tuple[str, ...]:
    """Of images and audio, those that a class of transformers reads."""
    kinds = (kind for name in _arguments(model_class) for part, kind in _MEDIA.items() if part in name)
    return tuple(dict.fromkeys(kinds))


def missing_arguments(model_class: Any, available: Iterable[str]) -> list[str]:
    """The arguments of a class's `forward` that have no default and are none of `available`."""
    names = set(available)
    return [
        name
        for name, parameter in _arguments(model_class).items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and name not in names
    ]


def more_than_text(model_class: Any, given: Iterable[str] = ()) -> str | None:
    """What a class of transformers reads of a text besides its tokens, in words; None where it is nothing.

    Args:
        model_class: of transformers.
        given: names of arguments that it is given.
    """
    unknown = [name for name in _MORE_THAN_TEXT if name in _arguments(model_class) and name not in given]
    return _MORE_THAN_TEXT[unknown[0]] if unknown else None


def takes(model_class: Any, argument: str) -> bool:
    """Whether a class of transformers takes an argument."""
    return argument in _arguments(model_class)


def _arguments(model_class: Any) -> dict[str, inspect.Parameter]:
    if model_class is None:
        return {}
    parameters = dict(inspect.signature(model_class.forward).parameters)
    parameters.pop("self", None)
    return parameters


@cache
def _heads(lists: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for item in lists for name in _classes(f"{_PREFIX}{item}{_SUFFIX}"))


@cache
def _other_heads() -> dict[str, str]:
    """What the classes in transformers' other lists are for."""
    names: dict[str, str] = {}
    for item in sorted(vars(modeling_auto)):
        kind = item.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if item == f"{_PREFIX}{kind}{_SUFFIX}" and kind not in (*_SUPPORTED, *_WITHOUT_HEAD):
            words = _WORDS.get(kind, kind.lower().replace("_", " "))
            names |= {name: words for name in _classes(item) if name not in names}
    return names


def _classes(mapping: str) -> Iterable[str]:
    for names in getattr(modeling_auto, mapping).values():
        yield from [names] if isinstance(names, str) else (name for name in names if name)
