"""The memory: how much there is, how much is free, and how fast it is read."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import numpy as np

_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")
# Far larger than any cache, in bytes.
_READ = 256 * 2**20
_RUNS = 5


def total_memory() -> int | None:
    """The bytes of memory that this process can have, limited by its container; None if the system does not tell."""
    return _least(_physical(), _number(_CGROUP / "memory.max"))


def available_memory() -> int | None:
    """The bytes that a new process could have without swapping; None if the system does not tell."""
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    left = None if limit is None or used is None else max(0, limit - used + _reclaimable())
    return _least(_number_of(_MEMINFO, "MemAvailable"), left)


def address_space_left() -> int | None:
    """The bytes that this process may still map, by ``ulimit -v``; None without a limit, or if it cannot be told."""
    if sys.platform != "linux":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))


def memory_bandwidth(threads: int) -> float:
    """Measure how fast memory is read, in bytes a second: the limit of generation, which reads every weight each step.

    Args:
        threads: the threads that read at once.
    """
    from concurrent.futures import ThreadPoolExecutor

    # Written, so that each page is a page of its own; numpy's sum of many numbers runs without Python's lock.
    parts = [np.ones(_READ // threads // 8) for _ in range(threads)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_RUNS):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            seconds.append(time.perf_counter() - start)
    return sum(part.nbytes for part in parts) / min(seconds)


def peak_memory() -> int | None:
    """The most bytes of memory that this process has had; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    # On Linux a process begins with the peak of the one that started it, as far as getrusage tells.
    own = _number_of(_STATUS, "VmHWM")
    if own is not None:
        return own
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return most if sys.platform == "darwin" else most * 1024


def give_back_memory() -> None:
    """Let the system have the memory that was freed and that the C library keeps for later; only glibc can be told."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _number_of(path: Path, key: str) -> int | None:
    """A number of bytes that Linux gives in kB on a line of its own; None where there is no such line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    values = [line.split() for line in lines if line.startswith(f"{key}:")]
    return int(values[0][1]) * 1024 if values else None


def _reclaimable() -> int:
    """The bytes of a container's memory that only hold copies of files."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(value) for key, value in map(str.split, lines) if key in ("inactive_file", "active_file"))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        # "max" is no limit.
        return None


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)
