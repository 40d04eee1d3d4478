"""`triform prepare`, and exports for this machine."""

from __future__ import annotations

import json

import pytest

from tests.helpers.commands import one_line


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "triform" / "prepared"


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_bundle_is_prepared_and_what_was_is_removed(call, int4_bundle, place):
    before = call("generate", int4_bundle, "Some words", "--max-new-tokens", 5, "--temperature", 0)
    code, out, err = call("prepare", int4_bundle)
    (folder,) = place.iterdir()
    assert (code, err) == (0, "")
    shown = f"{size_of(place) / 1e6:.1f} MB"
    assert out == f"{int4_bundle}: prepared for this machine, {shown} in\n{folder}\n"
    assert call("generate", int4_bundle, "Some words", "--max-new-tokens", 5, "--temperature", 0) == before
    code, out, err = call("prepare", int4_bundle, "--remove")
    assert (code, out, err) == (0, f"{int4_bundle}: {shown} removed\n", "")
    assert list(place.iterdir()) == []


def test_json(call, int4_bundle, place):
    _, out, _ = call("prepare", int4_bundle, "--json")
    size = size_of(place)
    assert json.loads(out) == {"folders": list(map(str, place.iterdir())), "bytes": size}
    assert json.loads(call("prepare", int4_bundle, "--remove", "--json")[1]) == {"removed_bytes": size}


def test_an_export_for_this_machine(call, checkpoint, place, tmp_path):
    code, out, _ = call("export", checkpoint, tmp_path / "bundle", "--fast", "--for-this-machine")
    assert code == 0
    assert out.endswith(
        f"prepared for this machine, {size_of(place) / 1e6:.1f} MB: triform prepare --remove takes it away\n"
    )
    code, out, _ = call("export", checkpoint, tmp_path / "bundle", "--fast", "--for-this-machine", "--json", "--force")
    assert json.loads(out)["prepared_bytes"] == size_of(place)


def test_an_export_for_gpus_is_for_no_processor(call, checkpoint, place, tmp_path):
    code, _, err = call("export", checkpoint, tmp_path / "bundle", "--target", "gpu", "--for-this-machine")
    assert code == 2
    assert "--for-this-machine lays out weights for a processor; leave it out with --target gpu" in one_line(err)
    assert not (tmp_path / "bundle").exists()
