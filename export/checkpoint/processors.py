"""Loads a model's tokenizer and image processor, reads settings of processors, and writes the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from triform.export.checkpoint.files.json_files import content_of
from triform.export.checkpoint.gguf import loading as gguf
from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.source import Source
from triform.export.tokenization import code_points, conversion
from triform.models.errors import first_line
from triform.runtime.errors import ExportError
from triform.runtime.printable import quoted

# Image processors that rescale, resize and normalize, in this order, and exist for torchvision alone.
_FLOAT_RESIZING = ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast")

_TEMPLATE = "chat_template.jinja"
# Files of tokenizers besides tokenizer.json.
_VOCABULARIES = (
    "tekken.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "source.spm", "target.spm",
)  # fmt: skip


def load_image_processor(source: Source) -> Any:
    """Load the image processor, in transformers' version for Pillow and numpy, or in one that computes the same.

    Raises:
        ExportError: there is none, or it is not one that transformers has for Pillow.
    """
    with quiet():
        if _resizes_floats(source.model_folder):
            from triform.export.checkpoint.files.float_resizing import FloatResizingProcessor

            return FloatResizingProcessor.from_pretrained(source.model_folder)
        try:
            return AutoImageProcessor.from_pretrained(source.model_folder, backend="pil", **source.arguments)
        except Exception as error:  # transformers raises errors of any type here
            raise ExportError(f"{source.name} has no usable image processor: {first_line(error)}") from error


@contextmanager
def settings_named(processor: Any) -> Iterator[None]:
    """Read the settings of an image processor or feature extractor of transformers, which takes them as they are.

    Raises:
        ExportError: one is of a type or in a range that nothing can be computed with.
    """
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        name = type(processor).__name__.removesuffix("Pil")
        raise ExportError(
            f"the settings of the {name} cannot be used: {first_line(error)}; correct preprocessor_config.json, or "
            "fetch the model again"
        ) from error


def _resizes_floats(folder: Path) -> bool:
    content = content_of(folder / "preprocessor_config.json")
    return isinstance(content, dict) and content.get("image_processor_type") in _FLOAT_RESIZING


def load_tokenizer(source: Source) -> Any:
    """Load the tokenizer: one with a backend of the tokenizers package, or one whose ids are code points.

    Raises:
        ExportError: there is none, or it cannot be written as tokenizer.json.
    """
    tokenizer = load_original_tokenizer(source)
    if not hasattr(tokenizer, "backend_tokenizer"):
        with quiet():
            if code_points.code_points_info(tokenizer) is None:
                tokenizer = conversion.convert(tokenizer, source.name)
    return tokenizer


def load_original_tokenizer(source: Source) -> Any:
    """Load the tokenizer as transformers has it, which may be Python code.

    Raises:
        ExportError: there is none.
    """
    if source.gguf is not None:
        with quiet():
            return gguf.load_gguf_tokenizer(source.gguf)
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.tokenizer_folder, **source.arguments)
        except Exception as error:  # transformers raises errors of any type here
            raise ExportError(f"{source.name} has no usable tokenizer: {_lacking(source, error)}") from error
    if hasattr(tokenizer, "backend_tokenizer"):
        _check_knows_words(source, tokenizer)
        _check_reading(source, tokenizer)
    if source.adapter not in (None, source.tokenizer_folder) and (source.adapter / _TEMPLATE).is_file():
        # An adapter's folder may have a template, and no tokenizer besides.
        tokenizer.chat_template = (source.adapter / _TEMPLATE).read_text(encoding="utf-8")
    _check_templates(source, getattr(tokenizer, "chat_template", None))
    return tokenizer


def _lacking(source: Source, error: Exception) -> str:
    """Why there is no tokenizer: without tokenizer.json transformers may only say that it could not make one."""
    if (source.tokenizer_folder / "tokenizer.json").is_file():
        return first_line(error)
    held = [name for name in _VOCABULARIES if (source.tokenizer_folder / name).is_file()]
    beside = f"{' and '.join(held)} alone cannot be read" if held else "no other file that holds one"
    silent = isinstance(error, KeyError) or str(error).startswith("Couldn't instantiate")
    reason = "" if silent else f" ({first_line(error)})"
    return (
        f"its folder has no tokenizer.json, and {beside}{reason}; add tokenizer.json, or a "
        "tokenizer_config.json that names the tokenizer_class"
    )


def _check_templates(source: Source, templates: object) -> None:
    for template in templates.values() if isinstance(templates, Mapping) else [templates]:
        if not isinstance(template, str | None):
            raise ExportError(
                f"a chat template of {source.name} is no text, but {quoted(template)}; correct it or remove it"
            )


def _check_knows_words(source: Source, tokenizer: Any) -> None:
    """Refuse a tokenizer that transformers made without its files, which takes every text for unknown."""
    words = tokenizer.backend_tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    # Some kinds have the sign of a space without any file.
    if len(words) < 2:
        kind, files = type(tokenizer).__name__, list(tokenizer.vocab_files_names.values())
        raise ExportError(
            f"{source.name} has no tokenizer that knows words: {kind} reads {' or '.join(files)}, which the folder "
            "lacks; add tokenizer.json, or a tokenizer_config.json that names the right tokenizer_class"
        )


def _check_reading(source: Source, tokenizer: Any) -> None:
    """Refuse what tokenizer.json cannot say of how texts are read, and what is there for training."""
    if getattr(tokenizer, "split_special_tokens", False):
        raise ExportError(
            f"the tokenizer of {source.name} takes special tokens in a text for plain text (split_special_tokens in "
            "tokenizer_config.json), which no bundle does; set it to false"
        )
    dropout = getattr(tokenizer.backend_tokenizer.model, "dropout", None)
    if dropout:
        raise ExportError(
            f"the tokenizer of {source.name} cuts words at random, as in training (a dropout of {dropout:g} in "
            "tokenizer.json); set it to null"
        )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write tokenizer.json.

    Raises:
        ExportError: the tokenizer reads characters, or tokenizer.json gives other ids than it does.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ExportError("a tokenizer that reads characters can be exported for encoders of texts only")
    try:
        written = conversion.write(tokenizer.backend_tokenizer, folder / "tokenizer.json")
        differing = conversion.first_difference(tokenizer, written)
    except Exception as error:  # tokenizers raises plain exceptions
        _check_ids_differ(tokenizer)
        raise ExportError(f"the tokenizer cannot be written as tokenizer.json: {first_line(error)}") from error
    if differing is not None:
        _check_ids_differ(tokenizer)
        raise ExportError(f"the written tokenizer.json gives other ids for {differing}; please report this model")


def _check_ids_differ(tokenizer: Any) -> None:
    """Refuse a damaged vocabulary, in which two tokens have one id: one of them is lost when it is written."""
    tokens: dict[int, str] = {}
    for token, id_ in tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).items():
        if id_ in tokens:
            raise ExportError(
                f"in the tokenizer's vocabulary {quoted(tokens[id_])} and {quoted(token)} have the same id, {id_}; "
                "fetch the model again"
            )
        tokens[id_] = token
