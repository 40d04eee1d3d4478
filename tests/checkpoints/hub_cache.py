"""A made-up cache of the hub: a checkpoint in blobs, with a snapshot of links, as its client leaves them."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path


def add_to_cache(cache: Path, repository: str, folder: Path, *, commit: str = "a" * 40, ref: str = "main") -> Path:
    """Put a folder into a cache as the snapshot of a repository.

    Args:
        cache: HF_HOME/hub.
        repository: organization/name.
        folder: with the files.
        commit: of the snapshot.
        ref: the branch or tag that names it.

    Returns:
        the snapshot.
    """
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot, blobs, refs = root / "snapshots" / commit, root / "blobs", root / "refs"
    blobs.mkdir(parents=True, exist_ok=True)
    refs.mkdir(exist_ok=True)
    (refs / ref).write_text(commit)
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
