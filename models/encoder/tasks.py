"""The tasks of text encoders: the class that loads a checkpoint, and the inputs and outputs of its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from triform.models.errors import UnsupportedModelError
from triform.models.spec import EncoderTask


@dataclass(frozen=True)
class Head:
    """How to load and trace a model for a task.

    Attributes:
        auto_class: loads a checkpoint with the task's head.
        outputs: names of the model's outputs that become the graph's.
        picks_positions: whether the graph computes logits at given positions only.
    """

    auto_class: Any
    outputs: tuple[str, ...]
    picks_positions: bool = False


# By the task's name on the Hugging Face hub.
HEADS: dict[str, Head] = {
    "feature-extraction": Head(transformers.AutoModel, ("last_hidden_state",)),
    "text-classification": Head(transformers.AutoModelForSequenceClassification, ("logits",)),
    "token-classification": Head(transformers.AutoModelForTokenClassification, ("logits",)),
    "fill-mask": Head(transformers.AutoModelForMaskedLM, ("logits",), picks_positions=True),
    "question-answering": Head(transformers.AutoModelForQuestionAnswering, ("start_logits", "end_logits")),
    "next-sentence-prediction": Head(transformers.AutoModelForNextSentencePrediction, ("logits",)),
}

# Tasks by the suffix of transformers' class names.
_SUFFIXES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForQuestionAnsweringSimple": "question-answering",
    "ForNextSentencePrediction": "next-sentence-prediction",
}


def task_named(architecture: str) -> str | None:
    """The task in the name of a class of transformers; None where it names none of `HEADS`."""
    return next((task for suffix, task in _SUFFIXES.items() if architecture.endswith(suffix)), None)


def head_of(task: str) -> Head:
    """The head of a task.

    Raises:
        UnsupportedModelError: it is none of `HEADS`.
    """
    if task not in HEADS:
        raise UnsupportedModelError(f"{task} is no task of encoders of texts; there are: {', '.join(HEADS)}")
    return HEADS[task]


def text_task(task: str, inputs: tuple[str, ...], hidden_states: bool) -> EncoderTask:
    """The computation to trace for a task that reads text.

    Args:
        task: its name.
        inputs: the tokenizer's outputs: input_ids, attention_mask and perhaps token_type_ids.
        hidden_states: whether the graph outputs the states of every layer, as ``hidden_states.{i}``.

    Raises:
        UnsupportedModelError: there is no such task.
    """
    head = head_of(task)

    def outputs(results: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        named: dict[str, torch.Tensor] = {name: results[name] for name in head.outputs}
        if hidden_states:
            named |= {f"hidden_states.{index}": state for index, state in enumerate(results["hidden_states"])}
        return named

    return EncoderTask(inputs, outputs, head.picks_positions, arguments={"output_hidden_states": hidden_states})
