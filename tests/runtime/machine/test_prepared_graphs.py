"""Copies of graphs for this machine: when one is used, what it is found by, and how it goes, on small files."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from triform.runtime.errors import UnsupportedError
from triform.runtime.machine import prepared_graphs as module
from triform.runtime.machine.prepared_graphs import (
    check_preparable,
    prepared_graph,
    prepared_place,
    prepared_places,
    record_prepared,
    remove_prepared,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(module, "processor_kind", lambda: "fast")
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def graph(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, content in (("model.onnx", b"graph"), ("model.onnx.data", b"weights"), ("notes.txt", b"x")):
        (folder / name).write_bytes(content)
    return folder / "model.onnx"


def prepared(graph, content=b"copy"):
    place = prepared_place(graph, "1.2")
    place.mkdir()
    (place / graph.name).write_bytes(content)
    (place / "more").write_bytes(b"12")
    record_prepared(place, graph.parent)
    return place


def touched(path):
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_a_copy_is_found_as_long_as_nothing_was_written(graph, cache):
    assert prepared_graph(graph, "1.2") is None and not cache.exists()
    place = prepared(graph)
    assert place.parent == cache and cache.stat().st_mode & 0o777 == 0o700
    assert prepared_graph(graph, "1.2") == place / "model.onnx"
    assert prepared_graph(graph, "1.3") is None
    touched(graph.parent / "notes.txt")
    assert prepared_graph(graph, "1.2") == place / "model.onnx"


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_a_graph_that_was_written_has_another_place(graph, name):
    before = prepared(graph)
    touched(graph.parent / name)
    assert prepared_graph(graph, "1.2") is None and prepared_place(graph, "1.2") != before


def test_packed_weights_belong_to_a_graph(graph):
    before = prepared_place(graph, "1.2")
    (graph.parent / "other.packed").write_bytes(b"")
    assert prepared_place(graph, "1.2") != before


def test_another_processor_has_other_copies(graph, monkeypatch):
    before = prepared(graph)
    monkeypatch.setattr(module, "processor_kind", lambda: "slow")
    assert prepared_graph(graph, "1.2") is None and prepared_place(graph, "1.2") != before
    monkeypatch.setattr(module, "processor_kind", lambda: None)
    assert prepared_graph(graph, "1.2") is None
    with pytest.raises(UnsupportedError, match="graphs are prepared on Linux only"):
        check_preparable()
    monkeypatch.setattr(module, "cache_folder", lambda: None)
    assert prepared_graph(graph, "1.2") is None and list(prepared_places(graph.parent)) == []
    with pytest.raises(UnsupportedError, match="this system has no cache folder to keep prepared graphs in"):
        check_preparable()


@pytest.mark.parametrize("damage", ["a file", "gone", "no record", "no JSON", "no object", "no files", "another graph"])
def test_copies_that_are_not_used(graph, damage):
    place = prepared(graph)
    record = place / "prepared.json"
    content = json.loads(record.read_text())
    if damage == "a file":
        touched(place / "more")
    elif damage == "gone":
        (place / "more").unlink()
    elif damage == "no record":
        record.unlink()
    elif damage == "another graph":
        del content["files"]["model.onnx"]
        record.write_text(json.dumps(content))
    else:
        record.write_text({"no JSON": "{", "no object": "[]", "no files": '{"files": 3}'}[damage])
    assert prepared_graph(graph, "1.2") is None


def test_copies_of_a_bundle_and_of_those_that_are_gone(graph, tmp_path, cache):
    assert list(prepared_places(graph.parent)) == []
    own = prepared(graph)
    for name in ("other", "gone"):
        shutil.copytree(graph.parent, tmp_path / name)
    other, gone = (prepared(tmp_path / name / "model.onnx") for name in ("other", "gone"))
    (cache / "unfinished").mkdir()
    assert list(prepared_places(graph.parent)) == [own]
    assert list(prepared_places(tmp_path / "other")) == [other]
    shutil.rmtree(tmp_path / "gone")
    assert sorted(prepared_places(graph.parent)) == sorted([own, gone])


def test_a_copy_that_is_removed_says_its_size(graph):
    place = prepared(graph, b"12345")
    size = 5 + 2 + (place / "prepared.json").stat().st_size
    assert remove_prepared(place) == size and not place.exists()
