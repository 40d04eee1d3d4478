"""The tasks of image models: the class that loads a checkpoint, and the inputs and outputs of its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING,
)

from triform.models.encoder.tasks import task_named
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.spec import EncoderTask

LABELS, VECTORS, CONTRAST = "image-classification", "image-feature-extraction", "zero-shot-image-classification"

# The class that loads a checkpoint, by task.
IMAGE_HEADS: dict[str, Any] = {
    LABELS: transformers.AutoModelForImageClassification,
    VECTORS: transformers.AutoModel,
    CONTRAST: transformers.AutoModelForZeroShotImageClassification,
}


def image_task_of(config: PretrainedConfig) -> str | None:
    """The task a checkpoint was trained for, if it takes images, or images and texts to compare; None for any other."""
    architecture = (config.architectures or [""])[0]
    if "ForImageClassification" in architecture:
        return LABELS
    contrastive = MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if architecture in contrastive.values() or (not architecture and config.model_type in contrastive):
        return CONTRAST
    if task_named(architecture) is not None:
        # transformers says of Perceiver's that they read images, also of those that read texts.
        return None
    model_class = getattr(transformers, architecture, None) if architecture else MODEL_MAPPING.get(type(config), None)
    return VECTORS if tuple(getattr(model_class, "input_modalities", ())) == ("image",) else None


def labels_task(examples: Mapping[str, torch.Tensor], hidden_states: bool) -> EncoderTask:
    """From pixels to ``logits``.

    Args:
        examples: two images, as the model's arguments by name.
        hidden_states: whether the graph outputs the states of every layer, as ``hidden_states.{i}``.
    """

    def outputs(results: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": results["logits"], **_layers(results, hidden_states)}

    return _image_task(outputs, examples, hidden_states)


def vectors_task(
    model: PreTrainedModel, examples: Mapping[str, torch.Tensor], hidden_states: bool, pooled: bool
) -> EncoderTask:
    """From pixels to ``last_hidden_state`` and ``image_embedding``, one vector per image.

    Args:
        model: of images; one that reads texts too must have ``get_image_features``.
        examples: two images, as the model's arguments by name.
        hidden_states: whether the graph outputs the states of every layer, as ``hidden_states.{i}``.
        pooled: whether the vector is the model's own pooled output; otherwise it is the first token's, the class token.
    """

    def outputs(results: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        states = results["last_hidden_state"]
        vector = results["pooler_output"].flatten(1) if pooled else states[:, 0]
        return {"last_hidden_state": states, "image_embedding": vector, **_layers(results, hidden_states)}

    call = "get_image_features" if hasattr(model, "get_image_features") else None
    return _image_task(outputs, examples, hidden_states, call)


def outputs_for_image(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
    """Run a model on one image.

    Args:
        model: in evaluation mode.
        inputs: a batch of one image, as the model's arguments by name.

    Raises:
        UnsupportedModelError: it does not accept pixels of this shape, or its outputs are random.
    """
    function = getattr(model, "get_image_features", model)
    try:
        with torch.no_grad():
            outputs: Mapping[str, Any] = function(**inputs)
            again: Mapping[str, Any] = function(**inputs)
    except Exception as error:  # each architecture has its own checks
        size = " x ".join(map(str, inputs["pixel_values"].shape[1:]))
        message = f"it does not take the {size} pixels of its image processor: {first_line(error)}"
        raise UnsupportedModelError(message) from error
    if not all(torch.equal(again[name], output) for name, output in outputs.items() if torch.is_tensor(output)):
        raise UnsupportedModelError("its outputs for an image are random, as of a model that hides some of its patches")
    return outputs


def is_pooled(outputs: Mapping[str, Any], missing: tuple[str, ...]) -> bool:
    """Whether a model pools its tokens to one vector, with trained weights.

    Args:
        outputs: from `outputs_for_image`.
        missing: names of parameters that the checkpoint has no weights for.

    Raises:
        UnsupportedModelError: it outputs no tokens either.
    """
    if outputs.get("pooler_output") is not None and not missing:
        return True
    states = outputs.get("last_hidden_state")
    if states is None or states.dim() != 3:
        raise UnsupportedModelError("it has neither a pooled output nor tokens")
    return False


def contrast_tasks(inputs: tuple[str, ...], examples: Mapping[str, torch.Tensor]) -> tuple[EncoderTask, EncoderTask]:
    """From text to ``sentence_embedding`` and from pixels to ``image_embedding``, in one space, of length 1.

    Args:
        inputs: names of the tokenizer's outputs that the text tower takes.
        examples: two images, as the model's arguments by name.
    """

    def outputs_named(name: str) -> Any:
        return lambda results: {name: _unit(results["pooler_output"])}

    return (
        EncoderTask(inputs, outputs_named("sentence_embedding"), call="get_text_features"),
        _image_task(outputs_named("image_embedding"), examples, False, "get_image_features"),
    )


def _image_task(
    outputs: Any, examples: Mapping[str, torch.Tensor], hidden_states: bool, call: str | None = None
) -> EncoderTask:
    arguments = {"output_hidden_states": True} if hidden_states else {}
    return EncoderTask(tuple(examples), outputs, call=call, arguments=arguments, examples=examples, any_length=False)


def _layers(results: Mapping[str, Any], hidden_states: bool) -> dict[str, torch.Tensor]:
    states = results["hidden_states"] if hidden_states else ()
    return {f"hidden_states.{index}": state for index, state in enumerate(states)}


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm(p=2, dim=-1, keepdim=True)
