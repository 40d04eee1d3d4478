"""Counts and sizes that a checkpoint says it has, against its tensors: before a layer is built by them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from triform.runtime.errors import ExportError
from triform.runtime.printable import quoted

# The last part of a key, in transformers' spellings and in GGUF's.
_LAYERS = re.compile(r"(\w+_)?(layers?|block_count|blocks|num_hidden_groups)")
_SIZES = re.compile(
    r"(\w+_)?(hidden_size|vocab_size|intermediate_size|embedding_size|ffn_dim|d_model|d_ff|d_kv|n_embd|n_inner|head_dim"
    r"|heads?|experts|embedding_length|feed_forward_length|head_count|head_count_kv|(key|value)_length(_\w+)?|lora_rank"
    r"|embedding_length_per_layer_input|state_size|inner_size|group_count|time_step_rank|expert_count)"
)
_POSITIONS = re.compile(r"(\w+_)?(position_embeddings|positions|n_ctx|context_length)")
# Graphs count positions in int32.
_MOST_POSITIONS = 2**31 - 1
# Models that use one layer's weights several times have more layers than tensors.
_LAYERS_ANY_MODEL_HAS = 1000
_EXPERTS = re.compile(r"(\w+_)?experts")
_EXPERTS_ANY_MODEL_HAS = 10_000
# No format stores a number in less than a bit.
_BITS = 8


def check_sizes(name: str, values: Mapping[str, Any], *, tensors: int, size: int) -> None:
    """Check the sizes and counts of layers that a checkpoint says it has.

    Args:
        name: of the file that says so.
        values: what it says, by key.
        tensors: how many there are.
        size: bytes of all tensors.

    Raises:
        ExportError: a count is larger than the tensors can make true.
    """
    most = {_LAYERS: max(tensors, _LAYERS_ANY_MODEL_HAS), _SIZES: size * _BITS, _POSITIONS: _MOST_POSITIONS}
    for key, value in _numbers(values):
        for kind, limit in most.items():
            if kind.fullmatch(key.rpartition(".")[2]) and value > limit:
                raise ExportError(
                    f"{name} says {key} is {quoted(value)}, which no model of {tensors} tensors and {size} bytes has; "
                    "fetch the model again"
                )


def check_counts(name: str, values: Mapping[str, Any]) -> None:
    """Check the counts of what a model is built of one by one, where there are no tensors to compare them with.

    Args:
        name: of the file that says so.
        values: what it says, by key.

    Raises:
        ExportError: a count is larger than any model's.
    """
    most = {_LAYERS: _LAYERS_ANY_MODEL_HAS, _EXPERTS: _EXPERTS_ANY_MODEL_HAS}
    for key, value in _numbers(values):
        if any(kind.fullmatch(key.rpartition(".")[2]) and value > limit for kind, limit in most.items()):
            raise ExportError(f"{name} says {key} is {quoted(value)}, which no model has; fetch the model again")


def _numbers(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{where}{key}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float):
                yield f"{where}{key}", number
