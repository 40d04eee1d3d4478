"""What encoders are exported for: the class that loads a checkpoint, and what its graph takes and gives."""

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
    """A task by its name on the Hugging Face hub.

    Attributes:
        auto_class: loads a checkpoint with the task's head.
        outputs: names among the model's outputs, which are the graph's too.
        picks_positions: whether logits are wanted at some tokens only.
    """

    auto_class: Any
    outputs: tuple[str, ...]
    picks_positions: bool = False


HEADS: dict[str, Head] = {
    "feature-extraction": Head(transformers.AutoModel, ("last_hidden_state",)),
    "text-classification": Head(transformers.AutoModelForSequenceClassification, ("logits",)),
    "token-classification": Head(transformers.AutoModelForTokenClassification, ("logits",)),
    "fill-mask": Head(transformers.AutoModelForMaskedLM, ("logits",), picks_positions=True),
    "question-answering": Head(transformers.AutoModelForQuestionAnswering, ("start_logits", "end_logits")),
    "next-sentence-prediction": Head(transformers.AutoModelForNextSentencePrediction, ("logits",)),
}

# How the names of transformers' classes end.
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
    """What to trace for a task that reads text.

    Args:
        task: its name.
        inputs: what the model's tokenizer gives: input_ids, attention_mask and perhaps token_type_ids.
        hidden_states: whether the outputs of every layer are kept, as ``hidden_states.{i}``.

    Raises:
        UnsupportedModelError: there is no such task.
    """
    head = head_of(task)

    def outputs(found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        named: dict[str, torch.Tensor] = {name: found[name] for name in head.outputs}
        if hidden_states:
            named |= {f"hidden_states.{index}": state for index, state in enumerate(found["hidden_states"])}
        return named

    return EncoderTask(inputs, outputs, head.picks_positions, arguments={"output_hidden_states": hidden_states})
