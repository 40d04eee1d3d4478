"""Files by their hashes, and what is remembered of them: when, for which content, and how many."""

from __future__ import annotations

import hashlib
import os

import pytest

from triform.runtime import verified_files
from triform.runtime.errors import InputError
from triform.runtime.verified_files import check_verify, is_whole_file

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SECOND = 10**9


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where files are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "triform" / "verified"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


@pytest.fixture
def age(monkeypatch, path):
    """Sets how long ago the file was written, in nanoseconds."""

    def set_age(nanoseconds):
        written = path.stat().st_ctime_ns
        monkeypatch.setattr(verified_files.time, "time_ns", lambda: written + nanoseconds)

    return set_age


def remembered(folder):
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.mark.parametrize(("nanoseconds", "count"), [(3 * SECOND - 1, 0), (3 * SECOND, 1), (60 * SECOND, 1), (0, 0)])
def test_a_file_that_was_just_written_is_not_remembered(path, folder, age, nanoseconds, count):
    age(nanoseconds)
    assert is_whole_file(path, DIGEST, once=True)
    assert remembered(folder) == count


def test_only_whole_files_that_are_to_be_remembered_are(path, folder, age):
    age(60 * SECOND)
    assert not is_whole_file(path, "0" * 64, once=True)
    assert is_whole_file(path, DIGEST, once=False)
    assert remembered(folder) == 0


def test_what_is_remembered_is_not_hashed(path, folder, age, monkeypatch):
    age(60 * SECOND)
    assert is_whole_file(path, DIGEST, once=True)
    hashed = []
    monkeypatch.setattr(verified_files.hashlib, "file_digest", lambda *_: hashed.append(1) or hashlib.sha256(b"x"))
    assert is_whole_file(path, DIGEST, once=True) and hashed == []
    # Another hash is expected, or hashing is asked for.
    assert not is_whole_file(path, "0" * 64, once=True) and hashed == [1]
    assert not is_whole_file(path, DIGEST, once=False) and hashed == [1, 1]


@pytest.mark.parametrize("change", ["content", "times", "another file"])
def test_a_file_that_changed_is_hashed_again(path, folder, age, change):
    age(60 * SECOND)
    assert is_whole_file(path, DIGEST, once=True)
    if change == "content":
        path.write_bytes(b"WEIGHTS")
    elif change == "times":
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
        path.write_bytes(b"WEIGHTS")
    assert is_whole_file(path, DIGEST, once=True) is (change == "times")


def test_the_oldest_are_forgotten(path, folder, age, monkeypatch):
    """A thousand are kept; of the others the one that was verified longest ago goes."""
    age(60 * SECOND)
    monkeypatch.setattr(verified_files, "_MOST", 3)
    folder.mkdir(parents=True)
    for name, time in (("b", 20), ("a", 10), ("c", 30)):
        (folder / name).touch()
        os.utime(folder / name, ns=(time, time))
    assert is_whole_file(path, DIGEST, once=True)
    assert {"b", "c"} < {entry.name for entry in folder.iterdir()} and remembered(folder) == 3
    assert not (folder / "a").exists()


def test_how_many_are_kept():
    assert verified_files._MOST == 1000 and verified_files._SETTLED_NS == 3 * SECOND


def test_only_its_user_can_see_what_is_remembered(path, folder, age):
    age(60 * SECOND)
    assert is_whole_file(path, DIGEST, once=True)
    (entry,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, entry.stat().st_mode & 0o177) == (0o700, 0)


def test_a_folder_that_cannot_be_written(path, tmp_path, folder, age, monkeypatch):
    age(60 * SECOND)
    (tmp_path / "cache").write_text("a file")
    assert is_whole_file(path, DIGEST, once=True)


def test_without_a_place_to_remember(path, age, tmp_path, monkeypatch):
    """A cache folder of a relative name is none; then it is that of the home folder, if there is one."""
    age(60 * SECOND)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(verified_files.sys, "platform", "linux")
    assert is_whole_file(path, DIGEST, once=True)
    assert remembered(tmp_path / "home/.cache/triform/verified") == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(verified_files.sys, "platform", "darwin")
    assert is_whole_file(path, DIGEST, once=True)
    assert remembered(tmp_path / "home/Library/Caches/triform/verified") == 1

    def no_home():
        raise RuntimeError

    monkeypatch.setattr(verified_files.Path, "home", no_home)
    assert is_whole_file(path, DIGEST, once=True) and not (tmp_path / "relative").exists()


@pytest.mark.parametrize("name", ["always", "once", "never"])
def test_ways_to_verify(name):
    check_verify(name)


@pytest.mark.parametrize("name", ["", "Once", "often"])
def test_what_is_no_way_to_verify(name):
    with pytest.raises(InputError) as caught:
        check_verify(name)
    assert str(caught.value) == f"`verify` must be always, once or never, not {name!r}"
