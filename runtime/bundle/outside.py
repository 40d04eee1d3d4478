"""Keeps files and folders that are written out of bundles, which are refused with anything besides their own."""

from __future__ import annotations

from pathlib import Path

from triform.runtime.bundle.manifest import MANIFEST
from triform.runtime.errors import InputError
from triform.runtime.files import followed

# Stands near the beginning of every bundle's manifest, and of no other file of that name.
_SIGN, _BEGINNING = b'"triform_version"', 4096


def check_outside_bundles(path: Path) -> None:
    """Check that a file or folder to be written is in no bundle.

    Raises:
        InputError: it is in one.
    """
    for folder in followed(path).parents:
        if _is_bundle(folder):
            raise InputError(
                f"{path} cannot be written: it is in the folder of the bundle {folder}, which holds nothing else"
            )


def _is_bundle(folder: Path) -> bool:
    try:
        with (folder / MANIFEST).open("rb") as file:
            return _SIGN in file.read(_BEGINNING)
    except OSError:
        return False
