"""From graphs in memory to a bundle on disk: whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from triform.export.graph.packed import PackedTensor
from triform.export.paths import check_target
from triform.runtime.bundle.manifest import MANIFEST, FileInfo, GraphInfo, Quantization, TensorInfo
from triform.runtime.errors import ExportError, option
from triform.runtime.graphs.packed_weights import packed_list
from triform.runtime.unfinished import exchange, retire, unfinished

# Tensors are aligned to memory pages, so that the runtime can map each one; smaller ones stay inside the graph file.
_PAGE = 4096
_INLINE = 1024


# By the hash of a constant's bytes: the file that holds them, their offset there, and their length.
Stored = dict[bytes, tuple[str, int, int]]


class GraphFile:
    """A graph's file, and the one beside it for large constants, which can be written as they are made.

    Equal constants are stored once.
    """

    def __init__(self, path: Path, stored: Stored | None = None) -> None:
        """Begin the file of constants.

        Args:
            path: of the graph's file; the constants go to `path` + ".data".
            stored: see `write_graph`.

        Raises:
            OSError: the folder cannot be written.
        """
        self._path = path
        self._stored: Stored = {} if stored is None else stored
        self._packed: dict[str, dict[str, Any]] = {}
        # That of another graph which was written here before would be read with this one.
        packed_list(path).unlink(missing_ok=True)
        self._file = (path.parent / f"{path.name}.data").open("wb")

    def __enter__(self) -> GraphFile:
        """Nothing more to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file of constants."""
        self._file.close()

    def store(self, value: ir.Value) -> None:
        """Write a constant, and leave the graph its place in the file; small ones stay as they are.

        A packed one is written as it is, and has no place that ONNX Runtime could read it from.

        Raises:
            OSError: the disk is full.
        """
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _INLINE:
            return
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.base_dir) == self._path.parent:
            # Written already; an imported graph's are in the folder that it came from.
            return
        shape = ir.Shape(tensor.shape.numpy())
        if not isinstance(tensor, PackedTensor):
            holder, offset, length = self._place(tensor.tobytes())
        else:
            holder, offset, _ = self._place(tensor.packed.tobytes())
            self._packed[str(value.name)] = {
                "file": holder,
                "shape": shape.numpy(),
                "offset": offset,
                "fields": tensor.fields,
            }
            holder, offset, length = f"{self._path.name}.unpacked", 0, tensor.nbytes
        value.const_value = ir.ExternalTensor(
            holder, offset, length, tensor.dtype, shape=shape, name=str(value.name), base_dir=self._path.parent
        )

    def _place(self, content: bytes) -> tuple[str, int, int]:
        """Write bytes, unless they are there already; the name of their file, their offset and their length."""
        key = hashlib.blake2b(content, digest_size=20).digest()
        if key not in self._stored:
            self._file.write(bytes(-self._file.tell() % _PAGE))
            self._stored[key] = (Path(self._file.name).name, self._file.tell(), len(content))
            self._file.write(content)
        return self._stored[key]

    def finish(self, model: ir.Model) -> None:
        """Write the graph, and the constants that are not written yet, which stay in memory.

        Raises:
            OSError: the disk is full.
        """
        originals = {value: value.const_value for value in model.graph.initializers.values()}
        _forget_origin(model)
        try:
            for value in originals:
                self.store(value)
            self._file.flush()
            os.fsync(self._file.fileno())
            if self._packed:
                packed_list(self._path).write_text(json.dumps(self._packed))
            ir.save(model, self._path)
        finally:
            for value, tensor in originals.items():
                value.const_value = tensor


def write_graph(model: ir.Model, path: Path, stored: Stored | None = None) -> None:
    """Write `model` to `path` and its large constants to `path` + ".data"; equal bytes are stored once.

    Args:
        model: its constants stay in memory.
        path: of the graph's file.
        stored: the constants of graphs written before to the same folder, which are not stored again; those of this
            graph are added.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    with GraphFile(path, stored) as file:
        file.finish(model)


def _forget_origin(model: ir.Model) -> None:
    """Drop where PyTorch traced each node from: it is half of a graph's file, and names folders of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def describe_graph(model: ir.Model, path: Path, quantization: Quantization, notes: dict[str, str]) -> GraphInfo:
    """The manifest's entry for a graph that `write_graph` wrote to `path`."""
    operators = operators_of(model)
    return GraphInfo(
        file=path.name,
        data=f"{path.name}.data",
        inputs=[_describe(value) for value in model.graph.inputs],
        outputs=[_describe(value) for value in model.graph.outputs],
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        quantization=quantization,
        notes=notes,
        packed=packed_list(path).name if packed_list(path).exists() else None,
    )


def operators_of(model: ir.Model) -> dict[str, int]:
    """How many operators of each type run; what is computed from constants alone is computed when a graph is opened."""
    operators: dict[str, int] = {}
    constant = set(model.graph.initializers.values())
    for node in model.graph:
        if node.inputs and all(value is None or value in constant for value in node.inputs):
            constant.update(node.outputs)
        else:
            operators[node.op_type] = operators.get(node.op_type, 0) + 1
    return operators


def _describe(value: ir.Value) -> TensorInfo:
    dtype = str(value.dtype.numpy()) if value.dtype is not None else "float32"
    shape = [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or []]
    return TensorInfo(str(value.name), dtype, shape)


def describe_files(folder: Path) -> dict[str, FileInfo]:
    """Size and hash of every file in `folder` but the manifest."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            with path.open("rb") as file:
                files[path.name] = FileInfo(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return files


@contextmanager
def staged(bundle: Path, force: bool) -> Iterator[Path]:
    """Give a folder to write into; rename it to `bundle` if the block ends well, else remove it.

    The folder is alone in one beside `bundle`, where whatever else is written is removed too.

    Raises:
        ExportError: `bundle` exists and `force` is false, at the beginning or in the end; or its parent cannot be
            written.
    """
    check_target(bundle, force)
    with ExitStack() as stack:
        try:
            bundle.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(unfinished(bundle, Path.mkdir)) / "bundle"
            folder.mkdir()
        except OSError as error:
            raise ExportError(f"cannot write beside {bundle}: {error.strerror}; choose another target") from None
        try:
            yield folder
            (_replace if force else _take_name)(folder, bundle)
        except OSError as error:
            raise ExportError(f"cannot write {bundle}: {error.strerror or error}; nothing was left behind") from error


def _take_name(folder: Path, bundle: Path) -> None:
    try:
        folder.rename(bundle)
    except OSError:
        if os.path.lexists(bundle):
            raise ExportError(
                f"{bundle} was made by another process meanwhile; use {option('force')} to replace it"
            ) from None
        raise


def _replace(folder: Path, bundle: Path) -> None:
    while True:
        if exchange(bundle, folder):
            # What was there before is removed with the unfinished folder.
            return
        retire(bundle, folder.parent)
        try:
            folder.rename(bundle)
            return
        except OSError:
            # Another export that may replace it has just done so.
            if not os.path.lexists(bundle):
                raise
