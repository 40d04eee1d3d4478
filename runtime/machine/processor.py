"""The processor: its name, the cores that this process may use, and the instructions that matter to ONNX Runtime."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# What ONNX Runtime's products of 8-bit and 4-bit weights choose their code by, as Linux spells it: x86, then ARM.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")
_CPUINFO = Path("/proc/cpuinfo")
# What tells one kind of processor from another there: x86, then ARM. The rest are clocks, counts and numbers of cores.
_KIND = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
)
_CPUS = Path("/sys/devices/system/cpu")
# A container's CPU quota: microseconds of processor time ("max" if unlimited) in each period of so many microseconds.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# Above any number of cores.
_NO_QUOTA = 2**20


def processor_name() -> str:
    """The processor's name, as far as the system tells."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The instructions that matter here, as Linux spells them; none where the system does not list them."""
    flags = set((_cpuinfo("flags", "Features") or "").split())
    return [name for name in _INSTRUCTIONS if name in flags]


def processor_kind() -> str | None:
    """All that the system tells of the first processor's kind and instructions; None where it tells nothing."""
    try:
        first = _CPUINFO.read_text(errors="replace").strip().split("\n\n")[0]
    except OSError:
        return None
    pairs = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    known = [f"{name}: {pairs[name]}" for name in _KIND if name in pairs]
    return "\n".join(known) if {"flags", "Features"} & pairs.keys() else None


def physical_cores() -> int:
    """Count the physical cores that this process may use, limited by its container's CPU quota.

    The hardware threads of a core share its arithmetic units, so counting both makes matrix products slower. Threads
    beyond the quota make a container wait for its next period.
    """
    return min(_allowed_cores(), _quota())


def _cpuinfo(*keys: str) -> str | None:
    """The value of the first of these keys. What follows, which is as much again for each processor, is not read."""
    try:
        with _CPUINFO.open(errors="replace") as lines:
            pairs = (line.partition(":") for line in lines)
            return next((value.strip() for name, _, value in pairs if name.strip() in keys), None)
    except OSError:
        return None


def _quota() -> int:
    try:
        share, period = map(int, _QUOTA.read_text().split())
        return max(1, -(-share // period))
    except (OSError, ValueError):
        return _NO_QUOTA


def _allowed_cores() -> int:
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed is None:
        # Only Linux's /sys has the topology; half of the processors is right if each core has two threads.
        return max(1, (os.cpu_count() or 1) // 2)
    return max(1, len({_core_of(cpu) for cpu in allowed}))


def _core_of(cpu: int) -> str:
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)
