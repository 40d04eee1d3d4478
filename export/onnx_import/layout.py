"""Finds a model's graph in a folder that another tool made."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx_ir as ir

from triform.export.checkpoint.files.json_files import content_of
from triform.export.checkpoint.quiet import quiet
from triform.runtime.errors import ExportError, InputError, option
from triform.runtime.printable import quoted

# The file of onnxruntime-genai, which names the graph.
GENAI_CONFIG = "genai_config.json"
# Where tools put graphs, and what they call the one that is not quantized, in the order that they are looked for.
_FOLDERS = ("", "onnx")
_DEFAULTS = ("model.onnx", "decoder_model_merged.onnx")
# Types that have NaN, and how many weights are looked at together.
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
_PIECE = 2**22
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
        ExportError: it cannot be read, is empty, or has weights outside its own folder or such that are no numbers.
    """
    try:
        # What onnx_ir logs of a damaged graph, the error says in one line.
        with quiet():
            model = ir.load(path)
    except Exception as error:  # protobuf and onnx_ir have no error in common
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path} cannot be read as an ONNX graph ({reason})") from error
    if not model.graph.inputs or not model.graph.outputs:
        raise ExportError(f"{path} is not a model's graph: it has no inputs or no outputs")
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            _check_location(path, str(value.const_value.location))
            if value.const_value.nbytes < _SMALL:
                [value.const_value] = ir.external_data.convert_tensors_from_external([value.const_value])
        _check_numbers(path, value)
    return model


def _check_numbers(path: Path, value: ir.Value) -> None:
    """Refuse NaN, which a comparison of outputs finds only where it is used; infinities are found in masks."""
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _FLOATS:
        return
    try:
        numbers = tensor.numpy()
    except Exception as error:  # onnx_ir raises what the reading of a file or numpy raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path}: the weights {quoted(str(value.name))} cannot be read ({reason})") from error
    # A piece at a time: the comparison makes arrays as large as the weights.
    if any(np.isnan(piece).any() for piece in np.array_split(numbers.reshape(-1), numbers.size // _PIECE + 1)):
        raise ExportError(f"{path}: the weights {quoted(str(value.name))} are not all numbers; fetch the model again")


def _check_location(path: Path, location: str) -> None:
    plain = PurePosixPath(location).name == location and PureWindowsPath(location).name == location
    if not plain or location in ("", ".", ".."):
        raise ExportError(f"{path} is unsafe: it has weights outside its folder, in {quoted(location)}")
    if not (path.parent / location).is_file():
        raise ExportError(f"{path} needs {quoted(location)} beside it, which is missing")
