"""Which cores and instructions a process may use."""

from __future__ import annotations

import os

import pytest

from triform.runtime.machine import processor
from triform.runtime.machine.processor import instructions, physical_cores, processor_name


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Six processors, two to a core; a process that may use the first `allowed`, in a container with a quota."""

    def build(allowed, quota=None):
        for cpu in range(6):
            folder = tmp_path / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "thread_siblings_list").write_text(f"{cpu % 3},{cpu % 3 + 3}\n")
        if quota is not None:
            (tmp_path / "cpu.max").write_text(quota)
        monkeypatch.setattr(processor, "_CPUS", tmp_path)
        monkeypatch.setattr(processor, "_QUOTA", tmp_path / "cpu.max")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)

    return build


@pytest.mark.parametrize(
    ("allowed", "quota", "cores"),
    [
        (6, None, 3),
        (2, None, 2),
        (4, "max 100000\n", 3),
        (6, "150000 100000\n", 2),
        (6, "50000 100000\n", 1),
        (6, "900000 100000\n", 3),
        (6, "damaged", 3),
    ],
)
def test_cores_are_physical_allowed_and_paid_for(machine, allowed, quota, cores):
    machine(allowed, quota)
    assert physical_cores() == cores


def test_cores_without_a_topology(machine, monkeypatch, tmp_path):
    machine(5)
    monkeypatch.setattr(processor, "_CPUS", tmp_path / "absent")
    assert physical_cores() == 5


@pytest.mark.parametrize(("processors", "cores"), [(8, 4), (7, 3), (2, 1), (1, 1), (None, 1)])
def test_half_of_the_processors_where_the_system_tells_no_more(machine, monkeypatch, processors, cores):
    machine(6)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert physical_cores() == cores


def test_a_process_has_one_core_at_least(machine):
    machine(0)
    assert physical_cores() == 1
    machine(6, "1 100000\n")
    assert physical_cores() == 1


def test_a_processor_is_described_as_linux_does(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx avx2 avx512_vnni sse\n\nprocessor\t: 1\n"
    )
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert processor_name() == "Some CPU @ 2 GHz"
    assert instructions() == ["avx2", "avx512_vnni"]
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n")
    assert instructions() == ["asimddp", "i8mm"]
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "absent")
    assert instructions() == []
