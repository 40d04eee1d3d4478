"""Names of files and folders that are being written, and the removal of those that killed processes left behind.

A process holds a lock on what it writes. The system drops the lock when the process ends, however that happens, so
whatever has such a name and no lock is litter.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".triform-part"
_NAME = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.triform-part", re.DOTALL)
# In an unfinished folder: what had the target's name before.
_RETIRED = "retired"
# Characters of the target's name, of up to four bytes each; file systems allow 255 bytes for the whole name.
_LONGEST = 40


@contextmanager
def unfinished(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Give a path beside `target`, to write to; whatever still has that name is removed when the context ends.

    What killed processes left in the same folder is put in order first.

    Args:
        target: the name that is wanted in the end.
        make: makes an empty file or folder.

    Raises:
        OSError: it cannot be made.
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
    """Move what has the name `target` into an unfinished folder; it comes back if nothing else takes the name.

    Args:
        target: a file or folder beside `path`; nothing happens if there is none.
        path: a folder that `unfinished` gave.

    Raises:
        OSError: it cannot be moved.
    """
    retired = path / _RETIRED / target.name
    # Retired before, and then another process took the name.
    _remove(retired)
    retired.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        target.rename(retired)


def _put_in_order(path: Path) -> None:
    try:
        for retired in (path / _RETIRED).glob("*"):
            if not os.path.lexists(path.parent / retired.name):
                retired.rename(path.parent / retired.name)
    except OSError:
        # It is safer where it is than removed.
        return
    _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder with all it holds; what cannot be removed stays."""
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
            # Another process took it for litter before it was locked.
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
    # Windows locks no folders and does not rename what is open: what is left behind stays there.

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
            # A file system without locks: what is left behind there stays.
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
