"""Verifies files by their SHA-256, and remembers in the user's cache folder which large files were verified.

A file is remembered by its device, inode, size and times, so that it is hashed again after a write.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Literal, get_args

from triform.runtime.errors import InputError, option

# When to hash files: always; large ones only once, until they change; or never.
Verify = Literal["always", "once", "never"]
# A file that was written so recently is not remembered: another write within the clock's resolution, two seconds on
# FAT, would not change its times.
_SETTLED_NS = 3 * 10**9
# The most files to remember.
_MOST = 1000


def check_verify(verify: str) -> None:
    """Check a value of `verify`.

    Raises:
        InputError: it is not always, once or never.
    """
    if verify not in get_args(Verify):
        raise InputError(f"{option('verify')} must be always, once or never, not {verify!r}")


def is_whole_file(path: Path, sha256: str, *, once: bool) -> bool:
    """Whether a file has this hash.

    Args:
        path: the file.
        sha256: the expected hash, in hexadecimal.
        once: whether to skip hashing if the file had this hash before and has not changed since, and to remember it.

    Raises:
        OSError: the file cannot be read.
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


def file_state(status: os.stat_result) -> str:
    """Numbers that identify a file in its present state: they differ after it was written, or replaced."""
    # A program can set the time of the last write (mtime), but not that of the last change of status (ctime).
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, numbers))


def _identity(status: os.stat_result, sha256: str) -> str:
    """A hash that identifies a file in its present state, and its expected content."""
    return hashlib.sha256(f"{file_state(status)}:{sha256}".encode()).hexdigest()


def _is_remembered(status: os.stat_result, sha256: str) -> bool:
    folder = _folder()
    return folder is not None and (folder / _identity(status, sha256)).exists()


def _remember(status: os.stat_result, sha256: str) -> None:
    """Remember a verified file, unless there is no cache folder or the file was written just now."""
    folder = _folder()
    written = status.st_ctime_ns if os.name == "posix" else status.st_mtime_ns
    if folder is None or time.time_ns() - written < _SETTLED_NS:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _identity(status, sha256)).touch(mode=0o600)
        _forget_oldest(folder)
    except OSError:
        # If the folder cannot be written, files are hashed at every load.
        return


def _forget_oldest(folder: Path) -> None:
    remembered = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in remembered[_MOST:]:
        path.unlink(missing_ok=True)


def _folder() -> Path | None:
    """The folder with an empty file for each verified file; None if the system has no cache folder."""
    base = cache_folder()
    return None if base is None else base / "verified"


def cache_folder() -> Path | None:
    """Triform's folder in this user's cache, which may not exist yet; None if the system has no cache folder."""
    base = _cache_of_user()
    return base / "triform" if base is not None and base.is_absolute() else None


def _cache_of_user() -> Path | None:
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
