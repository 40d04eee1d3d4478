"""Which cores and instructions a process may use."""

from __future__ import annotations

import os

import pytest

from triform.runtime.machine import processor
from triform.runtime.machine.processor import instructions, physical_cores, processor_kind, processor_name


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


X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
cpu MHz\t\t: {clock}
flags\t\t: fpu {flag}
bogomips\t: {clock}

processor\t: 1
flags\t\t: other
"""
ARM = """processor\t: 0
BogoMIPS\t: {clock}
Features\t: fp asimd {flag}
CPU implementer\t: 0x41
CPU part\t: 0xd0c
CPU revision\t: 1
"""


@pytest.mark.parametrize("text", [X86, ARM], ids=["x86", "ARM"])
def test_the_kind_of_a_processor_is_not_its_clock(monkeypatch, tmp_path, text):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", path)

    def kind(clock, flag):
        path.write_text(text.format(clock=clock, flag=flag))
        return processor_kind()

    assert kind("2400.0", "i8mm") == kind("3700.5", "i8mm")
    assert kind("2400.0", "i8mm") != kind("2400.0", "sve")


def test_every_field_of_a_kind_counts(monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", path)
    path.write_text(X86)
    assert processor_kind() == (
        "vendor_id: AuthenticAMD\ncpu family: 25\nmodel: 17\nmodel name: AMD EPYC\nstepping: 1\nflags: fpu {flag}"
    )
    path.write_text(ARM)
    assert processor_kind() == ("CPU implementer: 0x41\nCPU part: 0xd0c\nCPU revision: 1\nFeatures: fp asimd {flag}")


def test_a_processor_that_is_not_told(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert processor_kind() is None
    (tmp_path / "cpuinfo").write_text("model name: without instructions\n")
    assert processor_kind() is None
