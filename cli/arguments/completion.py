"""Completes the names of bundles on a shell's command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_MANIFEST = "manifest.json"
# Shells take what is printed as it is, and zsh evaluates it: a name with other characters is left to the shell's own
# completion of files.
_PLAIN = re.compile(r"[\w./~+-]+")
# The most folders to look into, so that a huge one does not stop the typing.
_MOST = 500


def complete_bundle(incomplete: str) -> list[str]:
    """The bundles that begin so, and those inside of folders that do.

    Nothing where there is none: shells then complete files and folders.
    """
    folder = os.path.dirname(incomplete)
    try:
        found = [
            os.path.join(folder, name)
            for name in _bundles(os.path.expanduser(folder) or ".", os.path.basename(incomplete))
        ]
    except OSError:
        return []
    return sorted(name for name in found if _PLAIN.fullmatch(name))


def _bundles(folder: str, start: str) -> Iterator[str]:
    for name in _folders(folder, start):
        inner = os.path.join(folder, name)
        if os.path.isfile(os.path.join(inner, _MANIFEST)):
            yield name
            continue
        for bundle in _folders(inner, ""):
            if os.path.isfile(os.path.join(inner, bundle, _MANIFEST)):
                yield os.path.join(name, bundle)


def _folders(folder: str, start: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MOST), entries, strict=False) if entry.is_dir()]
    except OSError:
        return []
    # Hidden ones as a shell does: when their dot is typed.
    return [name for name in names if name.startswith(start) and (start or not name.startswith("."))]
