"""Finds a model's graph in a folder that another tool made."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx_ir as ir

from triform.export.checkpoint.files.json_files import content_of
from triform.runtime.errors import ExportError, InputError, option
from triform.runtime.printable import quoted

# The file of onnxruntime-genai, which names the graph.
GENAI_CONFIG = "genai_config.json"
# Where tools put graphs, and what they call the one that is not quantized, in the order that they are looked for.
_FOLDERS = ("", "onnx")
_DEFAULTS = ("model.onnx", "decoder_model_merged.onnx")
# Bytes; smaller weights are kept in a graph's own file.
_SMALL = 1024


def find_graph(folder: Path, file: str | None) -> Path:
    """The path of the graph of an encoder or a decoder.

    Args:
        folder: of the model.
        file: the path of the graph in it; if None the one that `GENAI_CONFIG` names, the only one, or the one that is
            not quantized.

    Raises:
        InputError: `file` is not in the folder, or it has to be named because there are several.
        ExportError: there is no graph.
    """
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder; give the one that holds the graph and its config")
    if file is not None:
        if not (folder / file).is_file():
            raise InputError(f"{option('file')} {file} is not in {folder}")
        return folder / file
    graphs = [path for name in _FOLDERS for path in sorted((folder / name).glob("*.onnx"))]
    if not graphs:
        raise ExportError(f"{folder} has no .onnx file, neither in it nor in its folder onnx")
    for name in (*_named(folder), *_DEFAULTS):
        found = [path for path in graphs if path.name == name]
        if len(found) == 1:
            return found[0]
    if len(graphs) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in graphs)
        raise InputError(f"{folder} has several graphs: choose one with {option('file')}: {names}")
    return graphs[0]


def _named(folder: Path) -> list[str]:
    """The name that `GENAI_CONFIG` gives its graph, if it does."""
    content = content_of(folder / GENAI_CONFIG)
    for key in ("model", "decoder", "filename"):
        content = content.get(key) if isinstance(content, dict) else None
    return [content] if isinstance(content, str) else []


def read_graph(path: Path) -> ir.Model:
    """Read a graph; large weights in files of their own stay there.

    Raises:
        ExportError: it cannot be read, or has weights outside its own folder.
    """
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf and onnx_ir have no error in common
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path} cannot be read as an ONNX graph ({reason})") from error
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            _check_location(path, str(value.const_value.location))
            if value.const_value.nbytes < _SMALL:
                [value.const_value] = ir.external_data.convert_tensors_from_external([value.const_value])
    return model


def _check_location(path: Path, location: str) -> None:
    plain = PurePosixPath(location).name == location and PureWindowsPath(location).name == location
    if not plain or location in ("", ".", ".."):
        raise ExportError(f"{path} is unsafe: it has weights outside its folder, in {quoted(location)}")
    if not (path.parent / location).is_file():
        raise ExportError(f"{path} needs {quoted(location)} beside it, which is missing")
