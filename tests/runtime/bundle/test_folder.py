"""What a bundle's folder may hold besides what its manifest lists: nothing, but for what systems leave everywhere."""

from __future__ import annotations

import pytest

import triform
from tests.helpers.bundles import adopt
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import BundleError


@pytest.mark.parametrize("name", ["other.data", "README.md", ".hidden", "decoder.onnx.data.bak", "a\x1b[2Jb"])
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
