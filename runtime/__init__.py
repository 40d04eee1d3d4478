"""Runs bundles on a device, with numpy, onnxruntime, tokenizers and minijinja.

May import nothing else of triform. Read `opening.py` first, then the folder of a form: `decoder/`, `encoder/`,
`encoder_decoder/` or `speech/`. What they are built of lies below: `generation/`, `media/`, `graphs/`, `text/` and
`bundle/`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triform.runtime.decoder.conversation import Conversation
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.errors import TriformError
    from triform.runtime.generation.answers import Generation, Piece
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import load

__all__ = ["Conversation", "Decoder", "Generation", "GenerationOptions", "Piece", "TriformError", "load"]

_HOMES = {
    "Conversation": "decoder.conversation",
    "Decoder": "decoder.model",
    "Generation": "generation.answers",
    "GenerationOptions": "generation.options.generation",
    "Piece": "generation.answers",
    "TriformError": "errors",
    "load": "opening",
}


def __getattr__(name: str) -> Any:
    # Lazily, so that the error classes alone do not bring in numpy.
    if name in _HOMES:
        return getattr(import_module(f"triform.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'triform.runtime' has no attribute {name!r}")
