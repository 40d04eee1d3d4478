"""Replaces attributes of modules for a while, to trace them in another way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_ABSENT = object()


def kind_of(module: torch.nn.Module) -> str:
    """The file and the class of a module of transformers, such as modeling_bloom.BloomAttention; empty of others."""
    file, name = type(module).__module__, type(module).__name__
    return f"{file.rpartition('.')[2]}.{name}" if file.startswith("transformers.") else ""


@contextmanager
def values_unchecked() -> Iterator[None]:
    """While the block runs, a model that is traced checks no values of its tensors: ONNX has no such checks."""
    with patched([(torch, "_check_tensor_all", lambda *_: None)]):
        yield


@contextmanager
def patched(replacements: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """While the block runs, each object has another value for an attribute of its own.

    Args:
        replacements: objects, names and values; the objects are torch modules, whose methods can be replaced, or Python
            modules. A generator may look at what the replacements before have changed.
    """
    saved: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for target, name, value in replacements:
            attributes = vars(target)
            saved.append((attributes, name, attributes.get(name, _ABSENT)))
            attributes[name] = value
        yield
    finally:
        for attributes, name, value in reversed(saved):
            if value is _ABSENT:
                del attributes[name]
            else:
                attributes[name] = value
