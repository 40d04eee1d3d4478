"""Loading what makes a model's inputs: its tokenizer, its image processor; and writing the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from triform.export.checkpoint.gguf import loading as gguf
from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.source import Source
from triform.export.tokenization import code_points
from triform.export.tokenization import conversion as tokenizer_conversion
from triform.models.errors import first_line
from triform.runtime.errors import ExportError


def load_image_processor(source: Source) -> Any:
    """Load what turns pictures into the model's inputs, in transformers' version for Pillow and numpy.

    Raises:
        ExportError: there is none, or it is not one that transformers has for Pillow.
    """
    with quiet():
        try:
            return AutoImageProcessor.from_pretrained(source.model_folder, backend="pil", **source.arguments)
        except Exception as error:  # as above
            raise ExportError(f"{source.name} has no usable image processor: {first_line(error)}") from error


def load_tokenizer(source: Source) -> Any:
    """Load the tokenizer: one with a backend, or one that gives characters their code points.

    Raises:
        ExportError: there is none, or it cannot be written as tokenizer.json.
    """
    tokenizer = load_original_tokenizer(source)
    if not hasattr(tokenizer, "backend_tokenizer"):
        with quiet():
            if code_points.describe(tokenizer) is None:
                tokenizer = tokenizer_conversion.convert(tokenizer, source.name)
    return tokenizer


def load_original_tokenizer(source: Source) -> Any:
    """Load the tokenizer as transformers has it, which may be in Python.

    Raises:
        ExportError: there is none.
    """
    if source.gguf is not None:
        with quiet():
            return gguf.load_tokenizer(source.gguf)
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.tokenizer_folder, **source.arguments)
        except Exception as error:  # as above
            raise ExportError(f"{source.name} has no usable tokenizer: {first_line(error)}") from error
    if hasattr(tokenizer, "backend_tokenizer") and not tokenizer.backend_tokenizer.get_vocab_size():
        raise ExportError(f"{source.name} has no tokenizer: add tokenizer.json to the folder")
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write tokenizer.json.

    Raises:
        ExportError: what was written gives other ids than the tokenizer.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ExportError("a tokenizer that reads characters can be exported for encoders of texts only")
    written = tokenizer_conversion.write(tokenizer.backend_tokenizer, folder / "tokenizer.json")
    differing = tokenizer_conversion.difference(tokenizer, written)
    if differing is not None:
        raise ExportError(f"the tokenizer.json written reads {differing} otherwise; please report this model")
