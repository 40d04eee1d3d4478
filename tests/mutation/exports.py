"""Exports of unchanged code, kept from one trial to the next: most of the time of most tests is an export.

A mutation of `runtime/` is to be noticed by what runs the bundle, so the bundle may come from the code as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import pickle
import resource
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def keep_exports(clean: Path, kept: Path, changed: Path) -> None:
    """Make exports of this process copies of kept ones; a process that is forked now makes those that are missing.

    Args:
        clean: a copy of the repository, without changes.
        kept: the folder of kept exports.
        changed: a copy of the repository, whose modules this process is to import.
    """
    asked, ask = os.pipe()
    done, answer = os.pipe()
    if os.fork() == 0:
        os.close(ask)
        os.close(done)
        # Some take longer than a mutation may.
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        _make_exports(clean, asked, answer)
    # So that reading ends if that process does.
    os.close(asked)
    os.close(answer)
    for path in (changed, changed / "src"):
        sys.path.insert(0, str(path))
    pipeline = importlib.import_module("triform.export.pipeline")
    own = pipeline.export

    def export(source: Any, bundle: Any, options: Any = None, *progress: Any, **others: Any) -> Any:
        if progress or others or Path(bundle).exists() or not Path(source).exists():
            return own(source, bundle, options, *progress, **others)
        options = options or pipeline.ExportOptions()
        source = Path(source).absolute()
        place = kept / _key(source, f"{source.name} {options}")
        if not (place / "report").exists():
            os.write(ask, pickle.dumps((str(source), str(place), dataclasses.asdict(options))).ljust(8192, b"\0"))
            os.read(done, 1)
        if not (place / "report").exists():
            return own(source, bundle, options)
        shutil.copytree(place / "bundle", bundle)
        return dataclasses.replace(pickle.loads((place / "report").read_bytes()), bundle=Path(bundle))

    pipeline.export = export


def _key(source: Path, options: str) -> str:
    digest = hashlib.sha256(options.encode())
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.is_file():
            digest.update(f"{path.relative_to(source)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


def _make_exports(clean: Path, asked: int, answer: int) -> None:
    """Answer every request, and end with the process that asks."""
    for path in (clean, clean / "src"):
        sys.path.insert(0, str(path))
    os.chdir(clean)
    for source, place, options in _requests(asked):
        try:
            _make(source, Path(place), options)
        except BaseException:
            # Whoever asked exports it again, and gets the error.
            Path(place).mkdir(parents=True, exist_ok=True)
            (Path(place) / "error").write_text(traceback.format_exc())
        os.write(answer, b"\0")
    os._exit(0)


def _requests(asked: int) -> Iterator[Any]:
    while data := os.read(asked, 8192):
        yield pickle.loads(data)


def _make(source: str, place: Path, options: dict[str, Any]) -> None:
    from triform.export.options import ExportOptions
    from triform.export.pipeline import export

    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        report = export(source, place / "bundle", ExportOptions(**options))
    (place / "new").write_bytes(pickle.dumps(report))
    (place / "new").rename(place / "report")
