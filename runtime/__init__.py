"""Runs bundles with numpy, onnxruntime and tokenizers, nothing else."""

from triform.runtime.errors import TriformError
from triform.runtime.opening import load
from triform.runtime.options import GenerationOptions

__all__ = ["GenerationOptions", "TriformError", "load"]
