"""Numbers of a checkpoint's configs: each is one, also those that transformers takes as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from triform.runtime.errors import ExportError
from triform.runtime.printable import quoted

# Keys of rotary embeddings, at any depth; transformers computes with whatever they hold.
_NUMBERS = {
    "rope_theta", "rope_local_base_freq", "global_rope_theta", "local_rope_theta", "rotary_emb_base", "rotary_pct",
    "partial_rotary_factor", "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
    "low_freq_factor", "high_freq_factor", "mscale", "mscale_all_dim", "short_mscale", "long_mscale",
}  # fmt: skip
# Those of them that divide, or are raised to a power.
_ABOVE_ZERO = {
    "rope_theta", "rope_local_base_freq", "global_rope_theta", "local_rope_theta", "rotary_emb_base", "rotary_pct",
    "partial_rotary_factor", "factor", "original_max_position_embeddings", "freq_base", "freq_base_swa",
}  # fmt: skip
_LISTS = {"short_factor", "long_factor", "mrope_section"}
_DTYPES = {"dtype", "torch_dtype"}
_ROPE_TYPES = ("rope_type", "rope_scaling.type", "rope_parameters.type")
# Ends of ranges, which may have none.
_MAY_BE_INFINITE = "limit"


def check_numbers(name: str, values: Mapping[str, Any]) -> None:
    """Check the numbers of a config.

    Args:
        name: of the file that says so.
        values: what it says, by key.

    Raises:
        ExportError: one is NaN or an infinity, or not a number where there must be one; names the key.
    """
    for key, value in _entries(values):
        problem = _problem(key, value)
        if problem is not None:
            raise ExportError(f"{name} says {key} is {quoted(value)}, but it must be {problem}; fetch the model again")


def _entries(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield f"{where}{key}", value
        if isinstance(value, Mapping):
            yield from _entries(value, f"{where}{key}.")


def _problem(path: str, value: Any) -> str | None:
    """What the value of a key must be instead; None if it can be what it is."""
    key = path.rpartition(".")[2]
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, float) and not _is_possible(key, item):
            return "finite"
    if value is None:
        return None
    if key in _NUMBERS and not _is_number(value):
        # Some families have one for each kind of layer.
        return None if isinstance(value, Mapping) and all(map(_is_number, value.values())) and value else "a number"
    if key in _ABOVE_ZERO and _is_number(value) and value <= 0:
        return "above 0"
    if path.endswith(_ROPE_TYPES) and not isinstance(value, str):
        return "a name"
    if key in _LISTS and not (isinstance(value, list) and all(map(_is_number, value))):
        return "a list of numbers"
    if key in _DTYPES and not all(map(_is_dtype, value.values() if isinstance(value, Mapping) else [value])):
        return "the name of a type of PyTorch's"
    return None


def _is_possible(key: str, number: float) -> bool:
    return math.isfinite(number) or (math.isinf(number) and key.endswith(_MAY_BE_INFINITE))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_dtype(value: Any) -> bool:
    if not isinstance(value, str):
        return value is None
    return value == "auto" or isinstance(getattr(torch, value.removeprefix("torch."), None), torch.dtype)
