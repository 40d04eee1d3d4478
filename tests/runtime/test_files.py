"""Files and folders that appear only when they are whole, and arrays of as many rows as there turn out to be."""

from __future__ import annotations

import errno
import io
import os

import numpy as np
import pytest

from triform.runtime.errors import InputError
from triform.runtime.files import (
    check_writable,
    followed,
    npy_header,
    row_size,
    whole_file,
    whole_folder,
    write_npy,
)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_rows_that_are_counted_at_the_end(count, dtype):
    rows = np.arange(count * 3).reshape(count, 3).astype(dtype)
    file = io.BytesIO()
    assert write_npy(file, iter(rows), 3, dtype) == count
    assert file.tell() == len(file.getvalue())
    file.seek(0)
    found = np.load(file)
    assert found.dtype == dtype and found.shape == (count, 3)
    np.testing.assert_array_equal(found, rows)


def test_a_header_has_room_for_any_number_of_rows():
    assert len({len(npy_header(count, 384, "float32")) for count in (0, 1, 10**6, 10**18)}) == 1


@pytest.mark.parametrize(("dtype", "size"), [("float32", 20), ("float16", 10), ("int8", 5)])
def test_the_size_of_a_row(dtype, size):
    assert row_size(5, dtype) == size


def test_a_file_appears_at_the_end_and_replaces_another(tmp_path):
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        before = path.read_bytes() if path.exists() else None
        with whole_file(path) as file:
            file.write(content)
            file.seek(0)
            assert file.read() == content
            assert (path.read_bytes() if path.exists() else None) == before
        assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_link_is_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    with whole_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"
    assert followed(tmp_path / "link") == (tmp_path / "target").resolve()
    (tmp_path / "circle").symlink_to("circle")
    followed(tmp_path / "circle")


@pytest.mark.parametrize("make", [whole_file, check_writable], ids=["write", "check"])
def test_what_cannot_be_a_file(tmp_path, make):
    def write(path):
        if make is check_writable:
            check_writable(path)
        else:
            with whole_file(path):
                pass

    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder cannot be written: it is not a file$"):
        write(tmp_path / "folder")
    with pytest.raises(InputError, match=r"file cannot be written: No such file or directory$"):
        write(tmp_path / "nowhere" / "file")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_a_check_leaves_everything_as_it_was(tmp_path):
    check_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").write_bytes(b"old")
    check_writable(tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_names_the_file(tmp_path):
    for named in (None, "other"):
        with pytest.raises(OSError, match="No space left") as raised, whole_file(tmp_path / "file"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([named] if named else []))
        assert raised.value.filename == (named or str(tmp_path / "file"))
        with pytest.raises(OSError, match="No space left") as raised, whole_folder(tmp_path / "folder"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([named] if named else []))
        assert raised.value.filename == (named or str(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_at_the_end_and_replaces_none(tmp_path):
    with whole_folder(tmp_path / "folder") as unnamed:
        (unnamed / "file").write_bytes(b"content")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "file").read_bytes() == b"content"
    with pytest.raises(InputError, match=r"folder exists already$"), whole_folder(tmp_path / "folder"):
        pass
    with pytest.raises(InputError, match=r"folder cannot be made: No such file"):
        with whole_folder(tmp_path / "nowhere" / "folder"):
            pass
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "other"):
        raise ZeroDivisionError
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path):
    with pytest.raises(InputError, match=r"folder was made by another process meanwhile; try again to use it$"):
        with whole_folder(tmp_path / "folder") as unnamed:
            (unnamed / "file").touch()
            (tmp_path / "folder").mkdir()
            (tmp_path / "folder" / "theirs").touch()
    assert [one.name for one in (tmp_path / "folder").iterdir()] == ["theirs"]
