"""Imports a folder with ONNX graphs: finds out what form it has and runs that form's steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.export.onnx_import.decoder import import_decoder
from triform.export.onnx_import.decoders.graph import is_decoder
from triform.export.onnx_import.encoder import import_encoder
from triform.export.onnx_import.encoder_decoder import import_encoder_decoder
from triform.export.onnx_import.encoder_decoders.parts import find_parts
from triform.export.onnx_import.found import Found, ImportOptions
from triform.export.onnx_import.layout import GENAI_CONFIG, find_graph, read_graph
from triform.export.paths import check_target
from triform.export.report import Clock, Progress
from triform.runtime.errors import ExportError
from triform.runtime.printable import shortened


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        bundle: the folder that was made.
        graphs: the files that were imported.
        task: what the bundle is for.
        size: bytes of the bundle.
        notes: what is otherwise than one would expect, a sentence each.
    """

    bundle: Path
    graphs: tuple[Path, ...]
    task: str
    size: int
    notes: tuple[str, ...]


def import_model(
    source: str | Path, bundle: str | Path, options: ImportOptions | None = None, progress: Progress = lambda _: None
) -> Imported:
    """Turn a folder with the ONNX graphs of a model of texts, or of Whisper, into a bundle.

    Args:
        source: the folder, which holds the graphs, their config and the tokenizer.
        bundle: the folder to make.
        options: the defaults when None.
        progress: called as each step starts.

    Raises:
        ExportError: the folder or the target cannot be used, or the graph does not do what its config says.
        UnsupportedError: the graph has an unknown input, lacks an output, or has fixed sizes.
        InputError: an option does not fit the folder.
    """
    options, target, folder = options or ImportOptions(), Path(bundle), Path(source)
    check_target(target, options.force)
    clock = Clock(progress)
    try:
        paths, task = _import(folder, target, options, clock)
    except ir.serde.SerdeError as error:
        # Some parts of a graph are looked at only when it is written.
        raise ExportError(f"a graph of {folder} is damaged: {_cause_of(error)}") from error
    size = sum(file.stat().st_size for file in target.iterdir())
    return Imported(target, paths, task, size, tuple(clock.notes))


def _import(folder: Path, target: Path, options: ImportOptions, clock: Clock) -> tuple[tuple[Path, ...], str]:
    """Returns the graphs' files and the task."""
    parts = find_parts(folder, options.file, options.encoder_file)
    if parts is None:
        return _import_graph(folder, target, options, clock)
    return parts.paths, import_encoder_decoder(parts, target, options, clock)


def _cause_of(error: BaseException) -> str:
    """The first line of what an error of onnx_ir comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shortened((str(error).splitlines() or [type(error).__name__])[0])


def _import_graph(folder: Path, target: Path, options: ImportOptions, clock: Clock) -> tuple[tuple[Path, ...], str]:
    """Import an encoder or a decoder, which are one graph; returns its file and its task."""
    with clock.step("read"):
        path = find_graph(folder, options.file)
        found = Found(folder, path, read_graph(path))
    writes = is_decoder(found.graph.graph) or (folder / GENAI_CONFIG).is_file()
    return (path,), (import_decoder if writes else import_encoder)(found, target, options, clock)
