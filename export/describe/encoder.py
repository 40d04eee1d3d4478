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
    """The name of each column of ``logits``, of a config of transformers; LABEL_0 and so on where it has none."""
    names = config.id2label or {}
    return [str(names.get(index, f"LABEL_{index}")) for index in range(config.num_labels)]
