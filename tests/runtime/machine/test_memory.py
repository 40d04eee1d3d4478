"""How much memory there is, with and without a container's limit."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from triform.runtime.machine import memory
from triform.runtime.machine.memory import (
    address_space_left,
    available_memory,
    give_back_memory,
    memory_bandwidth,
    peak_memory,
    total_memory,
)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """8 GiB of memory, 6 of them available, and the container's files."""

    def build(**container):
        (tmp_path / "meminfo").write_text(f"MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: {6 * 2**20} kB\n")
        for name, content in container.items():
            (tmp_path / f"memory.{name}").write_text(content)
        monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "_CGROUP", tmp_path)
        monkeypatch.setattr(memory, "_physical", lambda: 8 * 2**30)

    return build


@pytest.mark.parametrize(
    ("container", "total", "available"),
    [
        ({}, 8, 6),
        ({"max": "max\n", "current": str(2**30)}, 8, 6),
        ({"max": str(4 * 2**30), "current": str(2**30)}, 4, 3),
        (
            {
                "max": str(4 * 2**30),
                "current": str(3 * 2**30),
                "stat": f"anon 5\ninactive_file {2**30}\nactive_file 0\n",
            },
            4,
            2,
        ),
        ({"max": str(4 * 2**30), "current": str(5 * 2**30)}, 4, 0),
    ],
)
def test_a_container_has_less_than_its_machine(machine, container, total, available):
    machine(**container)
    assert total_memory() == total * 2**30
    assert available_memory() == available * 2**30


def test_a_system_that_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_physical", lambda: None)
    assert total_memory() is None
    assert available_memory() is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to give memory back")
def test_freed_memory_goes_back_to_the_system():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # One in a hundred stays, so that the C library cannot give the others back by itself, which it does at the heap's
    # end.
    taken = [bytes(8192) for _ in range(10_000)]
    kept = taken[::100]
    del taken
    before = resident()
    give_back_memory()
    assert before - resident() > 60e6
    assert len(kept) == 100


def test_peak_memory_counts_bytes():
    before = peak_memory()
    array = np.ones(before // 8 + 2**24)
    assert peak_memory() >= array.nbytes


def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    code = "from triform.runtime.machine.memory import peak_memory; print(peak_memory())"
    own = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    array = np.ones(own // 8 + 2**24)
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert child < 1.2 * own < array.nbytes


def test_peak_memory_where_linux_does_not_tell(monkeypatch, tmp_path):
    array = np.ones(2**24)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent")
    assert peak_memory() >= array.nbytes


def test_bandwidth_is_plausible():
    """Between a slow board's and a large server's."""
    assert 1e8 < memory_bandwidth(2) < 1e13


@pytest.mark.parametrize("threads", [1, 2])
def test_more_is_read_than_caches_hold_and_the_fastest_run_counts(monkeypatch, threads):
    """By a clock whose runs take 8, 2, 4, … seconds: of all bytes in two."""
    ticks = iter([0, 8, 8, 10, 10, 14, 14, 20, 20, 25])
    monkeypatch.setattr(memory.time, "perf_counter", lambda: next(ticks))
    found = memory_bandwidth(threads)
    # The caches of large servers have a few hundred megabytes, of which one core has some tens.
    assert found * 2 >= 2**27 and next(ticks, None) is None


@pytest.mark.parametrize(("limit", "left"), [(100 * 4096, 63 * 4096), (37 * 4096, 0), (36 * 4096, 0), (None, None)])
def test_what_may_still_be_mapped(monkeypatch, limit, left):
    """Of a process that has mapped 37 pages, of which 5 are in memory."""
    limits = (resource.RLIM_INFINITY if limit is None else limit, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits if kind == resource.RLIMIT_AS else None)
    monkeypatch.setattr(memory.Path, "read_text", lambda self: "37 5 4 1 0 20 0\n")
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else None)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    assert address_space_left() == left
    monkeypatch.setattr(memory.Path, "read_text", lambda self: "")
    assert address_space_left() is None
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: pytest.fail("not there"))
    assert address_space_left() is None
