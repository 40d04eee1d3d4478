"""Describes the outputs of an encoder for the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from triform.runtime.bundle.manifest import TensorInfo
from triform.runtime.errors import ExportError


def vector_width(outputs: Iterable[TensorInfo], name: str) -> int | None:
    """The last dimension of the output called `name`; None if there is no such output.

    Raises:
        ExportError: the dimension depends on the input.
    """
    for output in outputs:
        if output.name == name:
            width = output.shape[-1]
            if not isinstance(width, int):
                raise ExportError(f"the output {name} has no fixed width; please report this model")
            return width
    return None


def hidden_state_count(outputs: Iterable[TensorInfo]) -> int:
    """How many outputs are the states of a layer."""
    return sum(output.name.startswith("hidden_states.") for output in outputs)


def label_names(config: Any) -> list[str]:
    """The name of each column of ``logits``, of a config of transformers; LABEL_0 and so on where it has none.

    Raises:
        ExportError: the config names labels that are no columns, such as those counted from 1.
    """
    names = config.id2label or {}
    beyond = [index for index in names if not 0 <= index < config.num_labels]
    if beyond:
        raise ExportError(
            f"id2label in config.json names a label {beyond[0]}, but there are {config.num_labels}, counted from 0; "
            "correct it"
        )
    return [str(names.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]


def reads_context_first(tokenizer: Any, task: str) -> bool:
    """Whether a model that answers questions reads the text before the question.

    Transformers' example and pipeline of question answering, with which such models are trained and used, put the text
    first where a tokenizer pads on the left, as XLNet's does.
    """
    return task == "question-answering" and tokenizer.padding_side == "left"
