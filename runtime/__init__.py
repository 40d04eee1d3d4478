"""Runs bundles with numpy, onnxruntime and tokenizers, nothing else."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triform.runtime.conversation import Conversation
    from triform.runtime.decoder import Decoder, Generation, Piece
    from triform.runtime.errors import TriformError
    from triform.runtime.opening import load
    from triform.runtime.options import GenerationOptions

__all__ = ["Conversation", "Decoder", "Generation", "GenerationOptions", "Piece", "TriformError", "load"]

_HOMES = {
    "Conversation": "conversation",
    "Decoder": "decoder",
    "Generation": "decoder",
    "GenerationOptions": "options",
    "Piece": "decoder",
    "TriformError": "errors",
    "load": "opening",
}


def __getattr__(name: str) -> Any:
    # Lazily, so that the error classes alone do not bring in numpy.
    if name in _HOMES:
        return getattr(import_module(f"triform.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'triform.runtime' has no attribute {name!r}")
