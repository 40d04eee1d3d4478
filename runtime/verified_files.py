"""Are files what was written? Their SHA-256 says so; of large files it is remembered in the user's cache folder.

There a file is known by its device, inode, size and times, so that it is hashed again when anything was written to it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Literal, get_args

from triform.runtime.errors import InputError, option

# When files are hashed: always; large ones only once, until they change; or never.
Verify = Literal["always", "once", "never"]
# A write within the clock's granularity leaves a file's times as they are; FAT counts two seconds.
_SETTLED_NS = 3 * 10**9
# Files to remember at most.
_MOST = 1000


def check_verify(verify: str) -> None:
    """Refuse what is not one of the three words.

    Raises:
        InputError: it is not.
    """
    if verify not in get_args(Verify):
        raise InputError(f"{option('verify')} must be always, once or never, not {verify!r}")


def is_whole_file(path: Path, sha256: str, *, once: bool) -> bool:
    """Whether a file's content has this hash.

    Args:
        path: of the file.
        sha256: in hexadecimal.
        once: trust that a file which had this hash before, and has not been changed since, still has; and remember it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if once and _is_remembered(before, sha256):
            return True
        whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        after = os.fstat(file.fileno())
    if whole and once and _identity(before, sha256) == _identity(after, sha256):
        _remember(after, sha256)
    return whole


def _identity(status: os.stat_result, sha256: str) -> str:
    """What tells a file, and the content that it should have, from all others."""
    # The time of the last change of status cannot be set by a program, unlike that of the last write.
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, sha256)
    return hashlib.sha256(":".join(map(str, parts)).encode()).hexdigest()


def _is_remembered(status: os.stat_result, sha256: str) -> bool:
    folder = _folder()
    return folder is not None and (folder / _identity(status, sha256)).exists()


def _remember(status: os.stat_result, sha256: str) -> None:
    """Remember a whole file, where there is a place for it and the file was not written just now."""
    folder = _folder()
    written = status.st_ctime_ns if os.name == "posix" else status.st_mtime_ns
    if folder is None or time.time_ns() - written < _SETTLED_NS:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _identity(status, sha256)).touch(mode=0o600)
        _forget_oldest(folder)
    except OSError:
        # A device whose home cannot be written hashes at every load.
        return


def _forget_oldest(folder: Path) -> None:
    remembered = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in remembered[_MOST:]:
        path.unlink(missing_ok=True)


def _folder() -> Path | None:
    """Where files are remembered, one empty file for each; None where the system names no place."""
    base = _cache_folder()
    return base / "triform" / "verified" if base is not None and base.is_absolute() else None


def _cache_folder() -> Path | None:
    folder = os.environ.get("XDG_CACHE_HOME")
    if folder and Path(folder).is_absolute():
        return Path(folder)
    if os.name == "nt":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
