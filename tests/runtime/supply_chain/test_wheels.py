"""How pip is asked for wheels, and what is said where it fails; pip itself is replaced."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.supply_chain import wheels as module
from triform.runtime.supply_chain.wheels import fetch_wheels, platform_tags


@pytest.mark.parametrize(
    ("platform", "tags"),
    [
        ("manylinux_2_17_x86_64", ["manylinux_2_17_x86_64", "manylinux2014_x86_64"]),
        ("manylinux_2_19_aarch64", ["manylinux_2_19_aarch64", "manylinux_2_18_aarch64", "manylinux_2_17_aarch64",
                                    "manylinux2014_aarch64"]),
        # Older than any tag with a number.
        ("manylinux_2_16_x86_64", ["manylinux2014_x86_64"]), ("win_amd64", ["win_amd64"]),
        ("musllinux_1_2_x86_64", ["musllinux_1_2_x86_64"]), ("xmanylinux_2_28_x86_64", ["xmanylinux_2_28_x86_64"]),
    ],
)  # fmt: skip
def test_wheels_that_run_on_a_platform(platform, tags):
    assert platform_tags(platform) == tags


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A function that sets how pip ends; returns the commands that it is given."""
    commands = []

    def ends(code=0, said="", files=()):
        def run(command, **options):
            commands.append((command, options["env"]))
            for name in files:
                (tmp_path / name).write_bytes(b"")
            return SimpleNamespace(returncode=code, stderr=said)

        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
        return commands

    return ends


def fetch(folder, extras=()):
    return fetch_wheels(folder / "own.whl", extras, "manylinux_2_17_x86_64", "3.12", folder)


@pytest.mark.parametrize(("extras", "wanted"), [((), "own.whl"), (("a",), "own.whl[a]"), (("a", "b"), "own.whl[a,b]")])
def test_what_pip_is_asked_for(pip, tmp_path, extras, wanted):
    commands = pip(files=["b.whl", "a.whl", "c.tar.gz"])
    assert [path.name for path in fetch(tmp_path, extras)] == ["a.whl", "b.whl"]
    ((command, environment),) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"] and str(tmp_path / wanted) in command
    assert command[-4:] == ["--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64"]
    assert command[command.index("--python-version") + 1] == "3.12" and "--only-binary=:all:" in command
    # What pip writes in between is in the folder, and is gone.
    assert environment["TMPDIR"].startswith(str(tmp_path)) and environment["TMPDIR"] == environment["TEMP"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.whl", "b.whl", "c.tar.gz"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ERROR: No matching distribution found for numpy<3 (from triform)",
         "numpy<3 has no wheel for `platform` manylinux_2_17_x86_64 and `python` 3.12; "
         "name another platform or Python"),
        ("warning\nERROR: no network\nERROR: more", "pip cannot fetch the wheels: no network"),
        ("ERROR: Exception:\nTraceback\n  a\nOSError: full\n\n", "pip cannot fetch the wheels: OSError: full"),
        ("nothing", "pip cannot fetch the wheels: no reason given"),
        ("", "pip cannot fetch the wheels: no reason given"),
        ("ERROR: " + "x" * 400, "pip cannot fetch the wheels: " + "x" * 300),
    ],
)  # fmt: skip
def test_why_pip_fails(pip, tmp_path, said, expected):
    pip(1, said)
    with pytest.raises(InputError) as caught:
        fetch(tmp_path)
    assert str(caught.value) == expected


def test_without_pip(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        UnsupportedError, match=r"^packing needs pip, which this environment does not have; install it$"
    ):
        fetch(tmp_path)
