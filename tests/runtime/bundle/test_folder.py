"""What a bundle's folder may hold besides what its manifest lists: nothing, but for what systems leave everywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import triform
from tests.helpers.bundles import adopt
from triform.runtime.bundle.folder import _check_name, open_bundle
from triform.runtime.errors import BundleError


@pytest.mark.parametrize("name", ["other.data", "notes.md", ".hidden", "decoder.onnx.data.bak", "a\x1b[2Jb"])
def test_files_that_are_not_listed_are_refused(own_bundle, name):
    (own_bundle / name).write_bytes(b"0")
    with pytest.raises(BundleError, match="which its manifest does not list; move it away") as caught:
        open_bundle(own_bundle)
    assert str(caught.value).isprintable()


def test_folders_are_refused(own_bundle):
    (own_bundle / "more").mkdir()
    with pytest.raises(BundleError, match="holds 'more', which its manifest does not list"):
        open_bundle(own_bundle)


def test_weights_that_are_not_listed_are_refused(own_bundle):
    """What a graph reads is hashed, wherever it stands."""
    graph = (own_bundle / "decoder.onnx").read_bytes()
    (own_bundle / "decoder.onnx.tensor").write_bytes((own_bundle / "decoder.onnx.data").read_bytes())
    adopt(own_bundle, "decoder.onnx", graph.replace(b"decoder.onnx.data", b"decoder.onnx.tens"))
    (own_bundle / "decoder.onnx.tensor").rename(own_bundle / "decoder.onnx.tens")
    with pytest.raises(BundleError, match=r"holds 'decoder.onnx.tens', which its manifest does not list"):
        triform.load(own_bundle)


@pytest.mark.parametrize("name", [".DS_Store", "._decoder.onnx.data", "Thumbs.db", "desktop.ini", ".directory"])
def test_what_systems_leave_is_ignored(own_bundle, name):
    (own_bundle / name).write_bytes(b"icons")
    assert open_bundle(own_bundle).manifest.form == "decoder"


@pytest.mark.parametrize("named", [b"Thumbs.db", b"thumbs.DB"])
def test_unless_a_graph_names_it(own_bundle, named):
    graph = (own_bundle / "decoder.onnx").read_bytes()
    (own_bundle / "Thumbs.db").write_bytes(b"weights")
    adopt(own_bundle, "decoder.onnx", graph.replace(b"decoder.onnx.data", named + b"/" * 8))
    with pytest.raises(BundleError, match=r"decoder\.onnx names 'Thumbs.db', which the manifest does not list"):
        open_bundle(own_bundle)


def hub_cache(bundle, root):
    """A bundle as huggingface_hub's client stores what it fetched."""
    blobs, snapshot = root / "models--org--name" / "blobs", root / "models--org--name" / "snapshots" / "0a1b"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in bundle.iterdir():
        content = file.read_bytes()
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / name)
    return snapshot


def test_a_snapshot_in_the_hubs_cache_opens_as_the_folder_does(float_bundle, tmp_path):
    snapshot = hub_cache(float_bundle, tmp_path)
    (snapshot / "README.md").write_text("A page about the model.")
    asked = "The ferry", triform.GenerationOptions(max_new_tokens=5, temperature=0)
    assert triform.load(snapshot).generate(*asked).token_ids == triform.load(float_bundle).generate(*asked).token_ids


def test_a_blob_that_was_changed_is_refused(float_bundle, tmp_path):
    snapshot = hub_cache(float_bundle, tmp_path)
    blob = (snapshot / "tokenizer.json").resolve()
    content = blob.read_bytes()
    blob.write_bytes(content.replace(b"a", b"b", 1))
    with pytest.raises(BundleError, match="SHA-256 differs"):
        triform.load(snapshot)


@pytest.mark.parametrize(
    "place", ["elsewhere", "models--org--name", "models--org--name/snapshots", "models--a--b/blobs"]
)
def test_links_that_leave_the_models_blobs_are_refused(float_bundle, tmp_path, place):
    snapshot = hub_cache(float_bundle, tmp_path)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    other = tmp_path / place / "tokenizer"
    other.write_bytes((float_bundle / "tokenizer.json").read_bytes())
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(other)
    with pytest.raises(BundleError, match=r"tokenizer\.json is a symbolic link"):
        open_bundle(snapshot)


def test_a_folder_beside_the_snapshots_has_no_part_in_the_cache(float_bundle, tmp_path):
    """Its links lead to the same blobs."""
    snapshot = hub_cache(float_bundle, tmp_path)
    other = snapshot.parent.with_name("others") / snapshot.name
    other.parent.mkdir()
    snapshot.rename(other)
    with pytest.raises(BundleError, match="is a symbolic link"):
        open_bundle(other)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "/a", "C:a", "../a"])
def test_names_that_are_no_files_of_the_folder(tmp_path, name):
    with pytest.raises(BundleError, match="is unsafe: it names a file outside itself"):
        _check_name(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "a.b", "...", "..a", "a b"])
def test_names_of_files_of_the_folder(tmp_path, name):
    _check_name(tmp_path, name)
