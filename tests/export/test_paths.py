"""Sources and targets that are refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from triform.export.paths import check_source, check_target
from triform.runtime.errors import ExportError


@pytest.mark.parametrize("source", ["/absent", "./absent", "../absent", "~/absent", ".", "~"])
def test_a_path_must_exist(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source == ".":
        check_source(source)
        return
    with pytest.raises(ExportError, match=r"^\S+ does not exist; give a model folder, a \.gguf file or a hub id like"):
        check_source(source)


@pytest.mark.parametrize("source", ["org/name", "name", "a.gguf"])
def test_what_may_be_a_hub_id_is_not_looked_for(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_source(source)
    check_source(str(tmp_path))


def target(folder, kind):
    place = folder / "bundle"
    if kind in ("bundle", "empty", "other"):
        place.mkdir()
    if kind == "bundle":
        (place / "manifest.json").touch()
    if kind in ("bundle", "other"):
        (place / "decoder.onnx").touch()
    if kind == "file":
        place.touch()
    if kind == "dangling":
        place.symlink_to(folder / "absent")
    if kind == "manifest is a folder":
        (place / "manifest.json").mkdir(parents=True)
    return place


@pytest.mark.parametrize(
    ("kind", "without", "forced"),
    [
        ("nothing", True, True),
        ("bundle", False, True),
        ("empty", False, True),
        ("other", False, False),
        ("file", False, False),
        ("dangling", False, False),
        ("manifest is a folder", False, False),
    ],
)
def test_what_an_export_may_replace(kind, without, forced, tmp_path):
    place = target(tmp_path, kind)
    for force, allowed, said in (
        (False, without, "exists; use "),
        (True, forced, "exists and is not a bundle; remove"),
    ):
        if allowed:
            check_target(place, force)
        else:
            with pytest.raises(ExportError, match=f"bundle {said}"):
                check_target(Path(place), force)
