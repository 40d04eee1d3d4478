"""Files and folders that are being written when a process ends, in order or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from triform.runtime.files import whole_file, whole_folder
from triform.runtime.unfinished import exchange, retire, unfinished

WRITES = """
import sys, time
from pathlib import Path
from triform.runtime.files import whole_file, whole_folder

with getattr(sys.modules["triform.runtime.files"], sys.argv[1])(Path(sys.argv[2])) as target:
    if sys.argv[1] == "whole_file":
        target.write(b"half")
        target.flush()
    else:
        (target / "half").touch()
    print("begun", flush=True)
    time.sleep(60)
"""
REPLACES = """
import sys, time
from pathlib import Path
from triform.runtime.unfinished import exchange, retire, unfinished

with unfinished(Path(sys.argv[1]), Path.mkdir) as path:
    retire(Path(sys.argv[1]), path)
    print("begun", flush=True)
    time.sleep(60)
"""


def begun(code, *arguments):
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_what_a_killed_process_leaves_is_removed_at_the_next_start(tmp_path, kind):
    kill(begun(WRITES, kind, tmp_path / "a"))
    assert len(os.listdir(tmp_path)) == 1
    with whole_file(tmp_path / "another") as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["another"]


@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_what_a_living_process_writes_stays(tmp_path, kind):
    process = begun(WRITES, kind, tmp_path / "a")
    before = set(os.listdir(tmp_path))
    with whole_folder(tmp_path / "b") as folder:
        (folder / "whole").touch()
    assert set(os.listdir(tmp_path)) == before | {"b"}
    kill(process)


def test_names_that_look_alike_stay(tmp_path):
    names = [".a.123.part", ".a.triform-part", "a.1-0123abcd.triform-part", ".a.1-xyz.triform-part"]
    for name in names:
        (tmp_path / name).touch()
    with whole_file(tmp_path / "a"):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "a"])


def test_what_was_there_before_comes_back(tmp_path):
    """A kill between the two renames of a replacement."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "old").touch()
    kill(begun(REPLACES, tmp_path / "target"))
    assert not (tmp_path / "target").exists()
    with whole_file(tmp_path / "another"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["another", "target"]
    assert os.listdir(tmp_path / "target") == ["old"]


def test_what_was_there_before_comes_back_after_an_error(tmp_path):
    (tmp_path / "target").touch()
    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path / "target", os.mkdir) as path:
        retire(tmp_path / "target", path)
        assert len(os.listdir(tmp_path)) == 1
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["target"]


def test_long_names(tmp_path):
    """255 bytes is the most that file systems allow."""
    name = 250 * "n"
    with whole_file(tmp_path / name) as file:
        file.write(b"a")
    assert os.listdir(tmp_path) == [name]


def test_two_folders_take_each_others_names(tmp_path):
    for name in ("target", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    done = exchange(tmp_path / "target", tmp_path / "new")
    # Linux has had it since 3.15; other systems have not.
    assert done is (sys.platform == "linux")
    if done:
        assert os.listdir(tmp_path / "target") == ["new"] and os.listdir(tmp_path / "new") == ["target"]


def test_nothing_is_exchanged_for_nothing(tmp_path):
    (tmp_path / "target").touch()
    assert not exchange(tmp_path / "target", tmp_path / "nowhere")
    assert not exchange(tmp_path / "nowhere", tmp_path / "target")
    assert os.listdir(tmp_path) == ["target"]


def test_a_system_that_cannot_exchange_names(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    monkeypatch.setattr("triform.runtime.unfinished._renameat2", lambda: None)
    assert exchange(tmp_path / "a", tmp_path / "b") is False
    monkeypatch.setattr("triform.runtime.unfinished.sys", type("Other", (), {"platform": "win32"}))
    monkeypatch.setattr("triform.runtime.unfinished._renameat2", lambda: pytest.fail("not on this system"))
    assert exchange(tmp_path / "a", tmp_path / "b") is False


def test_what_was_retired_twice_is_the_last(tmp_path):
    target = tmp_path / "target"
    with unfinished(target, os.mkdir) as path:
        for content in ("first", "second"):
            target.write_text(content)
            retire(target, path)
            assert not target.exists()
        # Without anything of its name there is nothing to retire, and what was retired before is gone.
        target.write_text("third")
    assert target.read_text() == "third" and os.listdir(tmp_path) == ["target"]


def test_folders_are_locked_until_the_end_and_no_descriptor_is_left(tmp_path):
    before = os.listdir("/dev/fd")
    with unfinished(tmp_path / "target", os.mkdir) as path:
        # Another writer looks for what was left behind, and leaves this one alone.
        with unfinished(tmp_path / "other", os.mkdir):
            assert path.exists()
        assert len(os.listdir("/dev/fd")) == len(before) + 1
    assert len(os.listdir("/dev/fd")) == len(before) and os.listdir(tmp_path) == []
