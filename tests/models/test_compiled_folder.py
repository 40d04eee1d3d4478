"""A program that exports leaves nothing in the folder for temporary files, and can still compile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from triform.models.compiled_folder import without_compiled_folder

EXPORTS = """
from triform.export import ExportOptions, export
export({checkpoint!r}, {bundle!r}, ExportOptions(quantize="none"))
"""
COMPILES = """
import os, torch
from torch._inductor.runtime.cache_dir_utils import cache_dir
assert os.path.isdir(cache_dir())
"""


def run(code, temporary):
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    return [path.name.partition("_")[0] for path in temporary.iterdir()]


def test_an_export_leaves_nothing_in_the_folder_for_temporary_files(checkpoint, tmp_path):
    """PyTorch makes a folder there when its compiler is imported, which is why this is another process."""
    code = EXPORTS.format(checkpoint=str(checkpoint), bundle=str(tmp_path / "bundle"))
    assert run(code, tmp_path / "temporary") == []
    assert (tmp_path / "bundle" / "manifest.json").is_file()
    # What compiles after it has its folder.
    assert run("from triform.export import export\n" + COMPILES, tmp_path / "temporary") == ["torchinductor"]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    # So that it is not set when the test ends.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "x")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    return tmp_path


def make(folder: Path):
    """As PyTorch does."""
    folder.mkdir(exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def test_only_a_new_and_empty_folder_is_removed(temporary):
    folder = temporary / "torchinductor_me"
    with without_compiled_folder():
        make(folder)
    assert not folder.exists()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    with without_compiled_folder():
        make(folder)
        (folder / "compiled").touch()
    assert (folder / "compiled").exists()
    (folder / "compiled").unlink()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    # There before.
    with without_compiled_folder():
        make(folder)
    assert folder.exists()


def test_a_folder_that_is_named_stays(temporary, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(temporary / "torchinductor_mine"))
    with without_compiled_folder():
        make(temporary / "torchinductor_mine")
    assert (temporary / "torchinductor_mine").is_dir()
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    with without_compiled_folder():
        pass
    with without_compiled_folder():
        make(temporary / "other")
    assert (temporary / "other").is_dir()
