"""How many threads to use: the physical cores this process may run on."""

from __future__ import annotations

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")


def physical_cores() -> int:
    """Physical cores among the processors this process is allowed to use.

    Two hardware threads of one core share its arithmetic units, so counting both makes matrix products slower.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed is None:
        # No topology without Linux's /sys; half of the processors is right where each core has two threads.
        return max(1, (os.cpu_count() or 1) // 2)
    return max(1, len({_core_of(cpu) for cpu in allowed}))


def _core_of(cpu: int) -> str:
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)
