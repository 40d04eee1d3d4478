"""Temporary names for files and folders while they are written, and the removal of those that killed processes left.

A process locks what it writes. The system releases the lock when the process ends, however that happens, so a file or
folder with a temporary name and no lock can be removed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_SUFFIX = ".triform-part"
_NAME = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.triform-part", re.DOTALL)
# A folder in an unfinished folder, for the file or folder that had the target's name before.
_RETIRED = "retired"
# The characters of the target's name to use, of up to four bytes each; file systems allow 255 bytes for a name.
_LONGEST = 40
# Of renameat2(2): paths are relative to the working folder, and names are exchanged.
_HERE, _EXCHANGE = -100, 2


@contextmanager
def unfinished(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a file or folder with a temporary name beside `target`; remove it at the end, unless it was renamed.

    Files and folders that killed processes left in the same folder are cleaned up first.

    Args:
        target: the final path.
        make: makes an empty file or folder.

    Yields:
        the temporary path.

    Raises:
        OSError: the file or folder cannot be made.
    """
    for left in _left_behind(target.parent):
        _put_in_order(left)
    path, lock = _make_locked(target, make)
    try:
        yield path
    finally:
        _put_in_order(path)
        _unlock(lock)


def retire(target: Path, path: Path) -> None:
    """Move `target` into an unfinished folder; it is moved back at the end if nothing else has its name then.

    Args:
        target: a file or folder beside `path`; nothing happens if it does not exist.
        path: a folder from `unfinished`.

    Raises:
        OSError: it cannot be moved.
    """
    retired = path / _RETIRED / target.name
    # If it was retired before, another process has taken the name since.
    _remove(retired)
    retired.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        target.rename(retired)


def exchange(target: Path, path: Path) -> bool:
    """Let two files or folders take each other's names in one step, so that `target` is never without one.

    Returns:
        whether it was done; False where one does not exist, or the system cannot do it.
    """
    swap = _renameat2() if sys.platform == "linux" else None
    return swap is not None and swap(_HERE, os.fsencode(target), _HERE, os.fsencode(path), _EXCHANGE) == 0


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Linux's renameat2, which Python does not have; None where the C library lacks it."""
    import ctypes

    found = getattr(ctypes.CDLL(None), "renameat2", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return found


def _put_in_order(path: Path) -> None:
    try:
        for retired in (path / _RETIRED).glob("*"):
            if not os.path.lexists(path.parent / retired.name):
                retired.rename(path.parent / retired.name)
    except OSError:
        # If it cannot be moved back, it is kept where it is.
        return
    _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; ignore what cannot be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _make_locked(target: Path, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    while True:
        path = target.with_name(f".{target.name[:_LONGEST]}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}")
        make(path)
        try:
            return path, _lock(path)
        except OSError:
            # Another process found it before it was locked, and removed it.
            continue


def _left_behind(folder: Path) -> Iterator[Path]:
    try:
        names = [name for name in os.listdir(folder) if name.endswith(_SUFFIX) and _NAME.fullmatch(name)]
    except OSError:
        return
    for name in names:
        if _is_abandoned(folder / name):
            yield folder / name


if sys.platform == "win32":
    # Windows cannot lock folders and does not rename open files, so nothing is cleaned up there.

    def _lock(path: Path) -> int | None:
        return None

    def _unlock(lock: int | None) -> None:
        return

    def _is_abandoned(path: Path) -> bool:
        return False

else:
    import fcntl

    def _lock(path: Path) -> int | None:
        """Lock a path until the result is closed; OSError if another process has removed or locked it."""
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise
        except OSError:
            # The file system has no locks, so nothing is cleaned up on it.
            return lock
        if not os.path.exists(path):
            os.close(lock)
            raise FileNotFoundError(path)
        return lock

    def _unlock(lock: int | None) -> None:
        if lock is not None:
            os.close(lock)

    def _is_abandoned(path: Path) -> bool:
        try:
            lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(lock)
        return True
