"""How many cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores, hyperthreads counted, that the operating system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
