"""Rows of (what, value) that `triform export --dry-run` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triform.export.describe.normal_config import normal_config
from triform.export.options import MIXED, ExportOptions

Row = tuple[str, str]

_STEPS = "load, trace, fuse, verify against PyTorch, quantize, compare, write"


def plan_rows(
    name: str, form: str, task: str, model_type: str, details: Sequence[Row], weights: str, steps: str = _STEPS
) -> list[Row]:
    """The rows of every form, with the form's own `details` before how weights are stored."""
    return [
        ("model", name),
        ("form", form),
        ("task", task),
        ("model type", model_type),
        *details,
        ("weights", weights),
        ("steps", steps),
    ]


def size_rows(config: Any) -> list[Row]:
    """Layers and hidden size, if the config names them."""
    normal = normal_config(config)
    return [("layers", str(normal.get("num_layers", "?"))), ("hidden size", str(normal.get("hidden_size", "?")))]


def vocabulary_row(config: Any) -> Row:
    """Number of tokens, if the config names it."""
    return ("vocabulary", str(normal_config(config).get("vocab_size", "?")))


def stored_as(quantize: str) -> str:
    """How weights are stored by a scheme."""
    return {"none": "float32", MIXED: "3 to 8 bit, matrix by matrix"}.get(quantize, quantize)


def stored_for(options: ExportOptions) -> str:
    """How weights are stored for each target."""
    if not options.for_gpu:
        return stored_as(options.quantize)
    return f"{stored_as(options.quantize)}; {options.gpu_dtype} for GPUs" if options.for_cpu else options.gpu_dtype
