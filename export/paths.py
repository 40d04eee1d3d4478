"""Checks of the paths of an export that need none of the packages that take seconds to import."""

from __future__ import annotations

from pathlib import Path

from triform.runtime.bundle.manifest import MANIFEST
from triform.runtime.bundle.outside import check_outside_bundles
from triform.runtime.errors import ExportError, option


def check_source(source: str) -> None:
    """Refuse a path that does not exist. Whether a hub id exists is not checked.

    Raises:
        ExportError: as described.
    """
    is_path = Path(source).is_absolute() or source.startswith((".", "~"))
    if is_path and not Path(source).exists():
        raise ExportError(f"{source} does not exist; give a model folder, a .gguf file or a hub id like org/name")


def check_target(bundle: Path, force: bool) -> None:
    """Refuse a target that exists, and with `force` one that is no bundle, before any work is done.

    Raises:
        ExportError: as described.
        InputError: it is in another bundle.
    """
    check_outside_bundles(bundle)
    if not bundle.exists() and not bundle.is_symlink():
        return
    if not force:
        raise ExportError(f"{bundle} exists; use {option('force')} to replace it")
    if not bundle.is_dir() or (any(bundle.iterdir()) and not (bundle / MANIFEST).is_file()):
        raise ExportError(f"{bundle} exists and is not a bundle; remove it yourself or choose another target")
