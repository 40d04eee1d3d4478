"""Graphs that are prepared for this machine, in the user's cache folder: their weights are laid out as it reads them.

Such a copy is of use to one kind of processor and one version of ONNX Runtime alone, and only while neither its files
nor the graph's have been written since.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from triform.runtime.errors import UnsupportedError
from triform.runtime.files import followed
from triform.runtime.machine.processor import processor_kind
from triform.runtime.verified_files import cache_folder, file_state

# Raised when graphs are opened with other settings, or recorded otherwise: older copies are not found then.
_LAYOUT = 1
# In the folder of a copy: whose it is, and the states of its files.
_RECORD = "prepared.json"


def prepared_graph(graph: Path, onnxruntime: str) -> Path | None:
    """The copy of a graph that is prepared for this machine; None if there is none.

    Args:
        graph: the .onnx file in a bundle.
        onnxruntime: its version.
    """
    with suppress(OSError):
        return _unchanged_copy(graph, onnxruntime)
    return None


def _unchanged_copy(graph: Path, onnxruntime: str) -> Path | None:
    base = _base()
    # Most users have none, and the processor need not be looked at then.
    if base is None or not base.is_dir() or (kind := processor_kind()) is None:
        return None
    place = _place(base, graph, onnxruntime, kind)
    return place / graph.name if _is_unchanged(place, graph.name) else None


def prepared_place(graph: Path, onnxruntime: str) -> Path:
    """The folder for the prepared copy of a graph, which may not exist yet. Arguments as `prepared_graph`.

    Raises:
        UnsupportedError: see `check_preparable`.
        OSError: the user's cache folder cannot be made, or the graph is not there.
    """
    base, kind = check_preparable()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _place(base, graph, onnxruntime, kind)


def check_preparable() -> tuple[Path, str]:
    """Check that graphs can be prepared here.

    Returns:
        the folder for copies, which may not exist yet, and the processor's kind.

    Raises:
        UnsupportedError: the system has no cache folder, or does not tell what its processor is.
    """
    base, kind = _base(), processor_kind()
    if base is None:
        raise UnsupportedError("this system has no cache folder to keep prepared graphs in; set XDG_CACHE_HOME")
    if kind is None:
        raise UnsupportedError("graphs are prepared on Linux only, which tells what instructions a processor has")
    return base, kind


def record_prepared(place: Path, bundle: Path) -> None:
    """Record that a folder holds a copy, complete and as it is now.

    Args:
        place: the folder; renamed later, its files stay as they are.
        bundle: the folder of the bundle that the copy is for.
    """
    states = {path.name: file_state(path.stat()) for path in place.iterdir()}
    (place / _RECORD).write_text(json.dumps({"bundle": str(followed(bundle)), "files": states}))


def prepared_places(bundle: Path) -> Iterator[Path]:
    """The folders of all copies that are for a bundle, of use or not, and of those for bundles that are no more."""
    base, wanted = _base(), str(followed(bundle))
    if base is None or not base.is_dir():
        return
    for place in sorted(base.iterdir()):
        recorded = _recorded(place).get("bundle")
        if recorded == wanted or (isinstance(recorded, str) and not Path(recorded).is_dir()):
            yield place


def remove_prepared(place: Path) -> int:
    """Remove a copy, if it can be removed.

    Returns:
        the bytes that it had.
    """
    size = sum(path.stat().st_size for path in place.iterdir())
    # Without its record it is no copy, wherever this ends.
    (place / _RECORD).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    return size


def _base() -> Path | None:
    cache = cache_folder()
    return None if cache is None else cache / "prepared"


def _place(base: Path, graph: Path, onnxruntime: str, kind: str) -> Path:
    beside = sorted(path for path in graph.parent.iterdir() if path.suffix in (".data", ".packed"))
    states = [f"{path.name} {file_state(path.stat())}" for path in (graph, *beside)]
    key = "\n".join([str(_LAYOUT), onnxruntime, kind, *states])
    return base / hashlib.sha256(key.encode()).hexdigest()


def _is_unchanged(place: Path, graph: str) -> bool:
    files = _recorded(place).get("files")
    if not isinstance(files, dict) or graph not in files:
        return False
    with suppress(OSError):
        return all(file_state((place / name).stat()) == state for name, state in files.items())
    return False


def _recorded(place: Path) -> dict[str, object]:
    """What is recorded of a copy; nothing if it is incomplete or damaged."""
    with suppress(OSError, ValueError):
        recorded = json.loads((place / _RECORD).read_bytes())
        if isinstance(recorded, dict):
            return recorded
    return {}
