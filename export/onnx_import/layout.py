"""Finds a model's graph in a folder of optimum, sentence-transformers or transformers.js."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx_ir as ir

from triform.runtime.errors import ExportError, InputError, option
from triform.runtime.printable import quoted

# Where these tools put graphs, and what they call the one that is not quantized.
_FOLDERS = ("", "onnx")
_DEFAULT = "model.onnx"
# The parts of models that generate text.
_OTHER_FORMS = ("decoder_model", "encoder_model", "decoder_with_past_model")


def find_graph(folder: Path, file: str | None) -> Path:
    """The path of the graph to import.

    Args:
        folder: of the model, which holds config.json and the tokenizer.
        file: the path of the graph in it; if None the only one, or the one called model.onnx.

    Raises:
        InputError: `file` is not in the folder, or it has to be named because there are several.
        ExportError: there is no graph, or only graphs of models that generate text.
    """
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder; give the folder that holds config.json")
    if not (folder / "config.json").is_file():
        raise ExportError(f"{folder} has no config.json: only folders of optimum, sentence-transformers and "
                          "transformers.js can be imported")  # fmt: skip
    if file is not None:
        if not (folder / file).is_file():
            raise InputError(f"{option('file')} {file} is not in {folder}")
        return folder / file
    graphs = [path for name in _FOLDERS for path in sorted((folder / name).glob("*.onnx"))]
    others = [path for path in graphs if path.name.startswith(_OTHER_FORMS)]
    if others:
        raise ExportError(f"{others[0]} is a part of a model that generates text, and only encoders can be imported; "
                          "export the checkpoint instead")  # fmt: skip
    if not graphs:
        raise ExportError(f"{folder} has no .onnx file, neither in it nor in its folder onnx")
    defaults = [path for path in graphs if path.name == _DEFAULT]
    if len(graphs) > 1 and len(defaults) != 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in graphs)
        raise InputError(f"{folder} has several graphs: choose one with {option('file')}: {names}")
    return defaults[0] if defaults else graphs[0]


def read_graph(path: Path) -> ir.Model:
    """Read a graph; its weights stay on the disk.

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
    return model


def _check_location(path: Path, location: str) -> None:
    plain = PurePosixPath(location).name == location and PureWindowsPath(location).name == location
    if not plain or location in ("", ".", ".."):
        raise ExportError(f"{path} is unsafe: it has weights outside its folder, in {quoted(location)}")
    if not (path.parent / location).is_file():
        raise ExportError(f"{path} needs {quoted(location)} beside it, which is missing")
