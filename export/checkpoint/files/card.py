"""Where a checkpoint was published and under which license, as far as its folder tells."""

from __future__ import annotations

import re
from pathlib import Path

from triform.runtime.bundle.export_record import Origin

# A model's folder in the hub's cache, as in models--ORG--NAME/snapshots/REVISION.
_SNAPSHOT = re.compile(r"models--(?P<repository>[^/]+)/snapshots/(?P<revision>[^/]+)")
_CARD = "README.md"
# The card begins with keys in YAML between two lines of hyphens.
_KEYS = re.compile(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n|$)", re.DOTALL)
_LICENSE = re.compile(r"""^(license|license_name):[ \t]+["']?([\w.+() -]{1,200}?)["']?[ \t]*$""", re.MULTILINE)


def origin_of(folder: Path) -> Origin | None:
    """The repository and revision of a snapshot from the hub, and the license that the model's card names.

    Args:
        folder: of the model.

    Returns:
        None if its files tell nothing of the kind. Paths of this machine are never part of it.
    """
    snapshot = _SNAPSHOT.search(folder.absolute().as_posix())
    repository = None if snapshot is None else snapshot["repository"].replace("--", "/")
    origin = Origin(repository, None if snapshot is None else snapshot["revision"], _license(folder / _CARD))
    return None if origin == Origin() else origin


def _license(card: Path) -> str | None:
    """None if the card cannot be read: it is for people, and often written by hand."""
    try:
        keys = _KEYS.match(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    found = dict(_LICENSE.findall(keys[1])) if keys is not None else {}
    return found.get("license_name") if found.get("license") == "other" else found.get("license")
