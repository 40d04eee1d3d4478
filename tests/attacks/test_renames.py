"""Processes that are killed exactly before and after each rename: the old output is there whole, or the new one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from triform.runtime.unfinished import exchange

# Writes with one writer in a child that is killed at one place, in turn at all of them, and then in one that is not.
_KILLS = """
import json, os, shutil, signal, sys
from pathlib import Path
import triform.export.write as write
from triform.runtime.files import whole_file, whole_folder
from triform.runtime.unfinished import exchange

kind, place, has_old, can_exchange = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "old", sys.argv[4] == "exchange"
target = place / "out"

def put(content):
    if kind == "whole_file":
        with whole_file(target) as file:
            file.write(content)
        return
    with whole_folder(target) if kind == "whole_folder" else write.staged(target, force=has_old) as folder:
        (folder / "a").write_bytes(content)
        (folder / "manifest.json").write_bytes(content)

def content():
    if target.is_dir():
        return [path.read_text() for path in sorted(target.iterdir())]
    return [target.read_text()] if target.exists() else []

def fork(number, when):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0
    def killing(original):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if (count, when) == (number, "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if (count, when) == (number, "after"):
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call
    os.rename, os.replace = killing(os.rename), killing(os.replace)
    write.exchange = killing(exchange) if can_exchange else lambda *_: False
    try:
        put(b"new")
        os._exit(0)
    finally:
        os._exit(1)

number = 0
while True:
    number += 1
    for when in ("before", "after"):
        shutil.rmtree(place)
        place.mkdir()
        if has_old:
            force, has_old = has_old, False
            put(b"old")
            has_old = force
        status = fork(number, when)
        found = content()
        # What begins next in the same folder puts it in order.
        with whole_file(place / "other"):
            pass
        print(json.dumps([status, found, content(), sorted(os.listdir(place))]), flush=True)
        if status != signal.SIGKILL:
            sys.exit()
"""


@pytest.mark.parametrize(
    ("kind", "before", "way"),
    [
        ("whole_file", "none", "exchange"),
        ("whole_file", "old", "exchange"),
        ("whole_folder", "none", "exchange"),
        ("staged", "none", "exchange"),
        ("staged", "old", "exchange"),
        ("staged", "old", "two renames"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_kills_around_each_rename(tmp_path, kind, before, way):
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _KILLS, kind, str(place), before, way], capture_output=True, text=True, check=True
    )
    *killed, whole = map(json.loads, done.stdout.splitlines())
    files = 1 if kind == "whole_file" else 2
    old, new = ["old"] * files if before == "old" else [], ["new"] * files
    assert killed and all(status == signal.SIGKILL for status, *_ in killed)
    assert whole[:3] == [0, new, new]
    for _, found, later, names in killed:
        assert later in (old, new) and names == (["other", "out"] if later else ["other"])
        # Between two renames there is neither, until the next start.
        assert found == later or (way == "two renames" and found == [])
    assert [later for *_, later, _ in killed if later == new]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names")
@pytest.mark.parametrize("relative", [False, True])
def test_two_folders_take_each_others_names(tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    parent = Path() if relative else tmp_path
    one, other = parent / "one", parent / "other"
    one.mkdir()
    (one / "a").touch()
    assert not exchange(one, other)
    other.mkdir()
    assert exchange(one, other)
    assert (os.listdir(one), os.listdir(other)) == ([], ["a"])
