"""Prepares the graphs of a bundle for this machine, so that they open faster and take less memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.verification import check_files
from triform.runtime.errors import TriformError, UnsupportedError, pass_on
from triform.runtime.files import whole_folder
from triform.runtime.graphs.protocols import GraphSession, Node
from triform.runtime.graphs.session import open_session, write_prepared
from triform.runtime.machine.prepared_graphs import prepared_place, prepared_places, record_prepared, remove_prepared

# Open sizes to try a graph with, until one suits it: it may need so many samples or rows.
_SIZES = (8, 64, 1600, 16000)
_ONE = ("batch", "sources", "num_logits")
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_Array = NDArray[Any]


@dataclass(frozen=True)
class Preparation:
    """What was prepared of a bundle.

    Attributes:
        folders: of the copies, one for each graph, in the user's cache.
        size: their bytes.
    """

    folders: list[str]
    size: int


def prepare(path: str | Path) -> Preparation:
    """Write copies of a bundle's graphs whose weights are laid out as this processor reads them.

    Otherwise ONNX Runtime lays them out at each start, in memory of the process's own. From a copy they are mapped: the
    system may drop them when memory is short, and processes share them. A copy has the weights twice, as they were and
    laid out, and is used by itself until a file of the bundle, the processor or ONNX Runtime changes. Each is opened,
    and must give the same outputs as its graph on made-up inputs, bit for bit. Older copies for the bundle are removed.

    Args:
        path: the bundle's folder.

    Raises:
        UnsupportedError: the system has no cache folder, or does not tell what its processor is; the bundle is made for
            GPUs; no made-up inputs suit a graph.
        BundleError: the bundle is missing or damaged.
        TriformError: a copy gives other outputs; there is none then.
        OSError: the disk is full.
    """
    bundle = open_bundle(path)
    check_files(bundle, "always")
    if bundle.manifest.target == "gpu":
        raise UnsupportedError(f"{path} is made for GPUs: there is nothing to prepare for a processor")
    import onnxruntime as ort

    graphs = [bundle.graph(name)[0] for name in bundle.manifest.graphs]
    places = [prepared_place(graph, ort.__version__) for graph in graphs]
    unprepare(path)
    for graph, place in zip(graphs, places, strict=True):
        _prepare_graph(graph, place, bundle.folder)
    sizes = (file.stat().st_size for place in places for file in place.iterdir())
    return Preparation([str(place) for place in places], sum(sizes))


def unprepare(path: str | Path) -> int:
    """Remove the copies that were prepared for a bundle, and those for bundles that are not there any more.

    Args:
        path: the bundle's folder, which need not be there any more either.

    Returns:
        the bytes that they had.
    """
    return sum(map(remove_prepared, prepared_places(Path(path))))


def _prepare_graph(path: Path, place: Path, bundle: Path) -> None:
    # The graph as it is, while it has no copy.
    plain = open_session(path, provider="cpu")
    feeds, expected = _tried(path, plain)
    del plain
    with whole_folder(place) as unnamed:
        write_prepared(path, unnamed)
        record_prepared(unnamed, bundle)
    try:
        found = open_session(path, provider="cpu").run(None, feeds)
        same = all(np.array_equal(one, other, equal_nan=True) for one, other in zip(found, expected, strict=True))
    except BaseException:
        remove_prepared(place)
        raise
    if not same:
        remove_prepared(place)
        raise TriformError(
            f"{path} gives other outputs when it is prepared for this machine; it is used as it was (please report it)"
        )


def _tried(path: Path, session: GraphSession) -> tuple[dict[str, _Array], list[_Array]]:
    """Made-up inputs that suit a graph, and its outputs.

    Raises:
        UnsupportedError: none suits it.
    """
    for size in _SIZES:
        feeds = {node.name: _made_up(node, size) for node in session.get_inputs()}
        try:
            return feeds, session.run(None, feeds)
        except Exception as error:  # onnxruntime's exceptions share no base class
            pass_on(error)
    raise UnsupportedError(f"{path} cannot be prepared: no made-up input suits it, so that a copy could not be tried")


def _made_up(node: Node, size: int) -> _Array:
    """An array for an input of a graph, one row of each batch and `size` of whatever else is open."""
    shape = [dim if isinstance(dim, int) else 1 if dim in _ONE else size for dim in node.shape]
    if node.type == "tensor(float)":
        return np.random.default_rng(0).standard_normal(shape, np.float32)
    dtype = _INTEGERS[node.type]
    if node.name == "input_ids":
        return np.resize(np.arange(2, dtype=dtype), shape)
    # All tokens are new, none is masked, and the rest are positions and kinds.
    value = size if node.name == "new_lengths" else int("mask" in node.name)
    return np.full(shape, value, dtype)
