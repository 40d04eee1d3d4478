"""Triform: trained transformers to small ONNX bundles, and bundles to text, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triform.runtime.decoder.conversation import Conversation
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import load

    __version__: str

__all__ = ["Conversation", "GenerationOptions", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Lazily, so that `import triform` costs nothing until something is used.
    if name in ("load", "Conversation", "GenerationOptions"):
        from triform import runtime

        return getattr(runtime, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("triform")
    raise AttributeError(f"module 'triform' has no attribute {name!r}")
