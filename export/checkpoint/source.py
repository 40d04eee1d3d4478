"""Loading a checkpoint safely: a transformers folder, a GGUF file, word vectors, or a hub id."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, PreTrainedModel

from triform.export.checkpoint.gguf import loading as gguf
from triform.export.checkpoint.gguf.placement import Placement
from triform.export.checkpoint.static_vectors import is_static
from triform.export.tokenization import code_points
from triform.export.tokenization import conversion as tokenizer_conversion
from triform.models.encoder.static import StaticConfig
from triform.models.errors import first_line
from triform.runtime.errors import ExportError


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is and how to ask transformers for it.

    Attributes:
        name: what to call the model: the folder's, the file's or the hub's name, without a path.
        location: first argument of ``from_pretrained``.
        arguments: further arguments of ``from_pretrained``.
        size: bytes of the weights on disk; 0 for a hub id that is not on disk yet.
    """

    name: str
    location: str
    arguments: dict[str, Any]
    size: int

    @property
    def gguf(self) -> Path | None:
        """The GGUF file, where it is one."""
        name = self.arguments.get("gguf_file")
        return None if name is None else Path(self.location) / name


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with what else its folder says.

    Attributes:
        source: where it came from.
        model: in float32, on CPU, in evaluation mode.
        tokenizer: None for a model that reads no text.
        weights_size: bytes.
        image_processor: None for a model that sees no pictures.
        missing: names of parameters that the checkpoint has no weights for, and no output needs.
        placements: of a GGUF file, where each parameter is in it, by name.
    """

    source: Source
    model: PreTrainedModel
    tokenizer: Any
    weights_size: int
    image_processor: Any = None
    missing: tuple[str, ...] = ()
    placements: Mapping[str, Placement] = field(default_factory=dict)


def find(source: str, *, trust_remote_code: bool = False, revision: str | None = None) -> Source:
    """Tell what kind of source this is, without loading anything.

    Raises:
        ExportError: a local path that is missing, empty or not a model.
    """
    path = Path(source)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if path.is_file() and is_static(path):
        return Source(path.stem, str(path), options, path.stat().st_size)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ExportError(
                f"{source} is a file but not a GGUF file, nor one of word vectors; give a model folder or a hub id"
            )
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ExportError(f"{source} is not a GGUF file: it does not begin with the bytes GGUF")
        return Source(path.stem, str(path.parent), {**options, "gguf_file": path.name}, path.stat().st_size)
    if path.is_dir() and is_static(path):
        size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
        return Source(path.resolve().name, str(path), options, size)
    if path.is_dir():
        return Source(path.resolve().name, str(path), options, _check_folder(path))
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        raise ExportError(f"{source} does not exist; give a model folder, a .gguf file or a hub id like org/name")
    return Source(source.split("/")[1], source, {**options, "revision": revision}, 0)


def _check_folder(path: Path) -> int:
    if not any(path.iterdir()):
        raise ExportError(f"{path} is empty; a model folder holds config.json and model.safetensors")
    if not (path / "config.json").is_file():
        raise ExportError(f"{path} is not a model: it has no config.json")
    weights = [*path.glob("*.safetensors")]
    if not weights:
        pickled = [*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")]
        hint = (
            f"{pickled[0].name} is a pickle, which can run code; save the model again as safetensors"
            if pickled
            else "save the model with save_pretrained"
        )
        raise ExportError(f"{path} has no *.safetensors weights: {hint}")
    return sum(file.stat().st_size for file in weights)


def read_config(source: Source) -> transformers.PretrainedConfig:
    """Read the model's config.

    Raises:
        ExportError: the config cannot be read.
    """
    if is_static(Path(source.location)):
        return StaticConfig()
    if source.gguf is not None:
        with _quiet():
            return gguf.read_config(source.gguf)
    with _quiet():
        try:
            config = AutoConfig.from_pretrained(source.location, **source.arguments)
        except Exception as error:  # transformers raises anything from KeyError to OSError here
            raise ExportError(f"the config of {source.name} cannot be read: {first_line(error)}") from error
    return config


def load(
    source: Source, config: transformers.PretrainedConfig, auto_class: Any, *, unused: tuple[str, ...] = ()
) -> Checkpoint:
    """Load weights (safetensors or GGUF only, never a pickle) in float32, and the tokenizer.

    Args:
        source: from `find`.
        config: from `read_config`.
        auto_class: the transformers class that loads it.
        unused: parts of the model that may be missing, because no output depends on them.

    Raises:
        ExportError: weights are damaged or do not fit the config, or there is no usable tokenizer.
    """
    tokenizer = load_tokenizer(source)
    return replace(load_model(source, config, auto_class, unused=unused), tokenizer=tokenizer)


def load_model(
    source: Source, config: transformers.PretrainedConfig, auto_class: Any, *, unused: tuple[str, ...] = ()
) -> Checkpoint:
    """Load the weights alone. Arguments and errors as `load`."""
    if source.gguf is not None:
        with _quiet():
            loaded = gguf.load_model(source.gguf, config, auto_class)
        _check_missing(source, loaded.missing, unused)
        return Checkpoint(source, loaded.model, None, source.size, missing=loaded.missing, placements=loaded.placements)
    with _quiet():
        try:
            model, report = auto_class.from_pretrained(
                source.location, dtype=torch.float32, use_safetensors=True, output_loading_info=True, config=config,
                **source.arguments,
            )  # fmt: skip
        except Exception as error:  # safetensors, gguf and transformers each have their own errors
            raise ExportError(f"the weights of {source.name} cannot be loaded: {first_line(error)}") from error
    absent = sorted(report.get("missing_keys", ()))
    _check_missing(source, absent, unused)
    model.eval()
    return Checkpoint(source, model, None, source.size or _bytes_of(model), missing=tuple(absent))


def _check_missing(source: Source, absent: Iterable[str], unused: tuple[str, ...]) -> None:
    missing = [key for key in absent if not set(key.split(".")) & set(unused)]
    if missing:
        raise ExportError(f"{source.name} lacks {len(missing)} weights its config asks for, such as {missing[0]}")


def load_image_processor(source: Source) -> Any:
    """Load what turns pictures into the model's inputs, in transformers' version for Pillow and numpy.

    Raises:
        ExportError: there is none, or it is not one that transformers has for Pillow.
    """
    with _quiet():
        try:
            return AutoImageProcessor.from_pretrained(source.location, backend="pil", **source.arguments)
        except Exception as error:  # as above
            raise ExportError(f"{source.name} has no usable image processor: {first_line(error)}") from error


def load_tokenizer(source: Source) -> Any:
    """Load the tokenizer: one with a backend, or one that gives characters their code points.

    Raises:
        ExportError: there is none, or it cannot be written as tokenizer.json.
    """
    tokenizer = load_original_tokenizer(source)
    if not hasattr(tokenizer, "backend_tokenizer"):
        with _quiet():
            if code_points.describe(tokenizer) is None:
                tokenizer = tokenizer_conversion.convert(tokenizer, source.name)
    return tokenizer


def load_original_tokenizer(source: Source) -> Any:
    """Load the tokenizer as transformers has it, which may be in Python.

    Raises:
        ExportError: there is none.
    """
    if source.gguf is not None:
        with _quiet():
            return gguf.load_tokenizer(source.gguf)
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.location, **source.arguments)
        except Exception as error:  # as above
            raise ExportError(f"{source.name} has no usable tokenizer: {first_line(error)}") from error
    if hasattr(tokenizer, "backend_tokenizer") and not tokenizer.backend_tokenizer.get_vocab_size():
        raise ExportError(f"{source.name} has no tokenizer: add tokenizer.json to the folder")
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> str | None:
    """Write tokenizer.json, and the chat template when there is one.

    Returns:
        the template's file name, or None.

    Raises:
        ExportError: what was written gives other ids than the tokenizer.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ExportError("a tokenizer that reads characters can be exported for encoders of texts only")
    written = tokenizer_conversion.write(tokenizer.backend_tokenizer, folder / "tokenizer.json")
    differing = tokenizer_conversion.difference(tokenizer, written)
    if differing is not None:
        raise ExportError(f"the tokenizer.json written reads {differing} otherwise; please report this model")
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        return None
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return "chat_template.jinja"


def _bytes_of(model: PreTrainedModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, log lines or progress bars of transformers: the one line of an error is all a user needs."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings(), tempfile.TemporaryFile("w") as sink:
        warnings.simplefilter("ignore")
        with _stderr_to(sink):
            try:
                yield
            finally:
                logging.disable(level)


@contextmanager
def _stderr_to(sink: Any) -> Iterator[None]:
    """Silence tqdm bars, which the GGUF reader writes to sys.stderr directly."""
    import sys

    saved, sys.stderr = sys.stderr, sink
    try:
        yield
    finally:
        sys.stderr = saved
