"""The version that a bundle is written in: the oldest that has what it needs, by the table in docs/bundle.md."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from triform.export.describe.manifest import _schema_version
from triform.runtime.bundle.reading import read_manifest

MANIFESTS = Path(__file__).parents[2] / "runtime" / "bundle" / "manifests"


def manifest(folder, name, *, packed=False, prompts=False, growth="in_place"):
    """One of an older export, with the parts of newer ones."""
    (folder / "manifest.json").write_bytes((MANIFESTS / f"{name}.json").read_bytes())
    found = read_manifest(folder)
    graphs = dict(found.graphs)
    if prompts:
        graphs["prompts"] = graphs["decoder"]
    if packed:
        last = list(graphs)[-1]
        graphs[last] = dataclasses.replace(graphs[last], packed="graph.onnx.packed")
    cache = found.cache and dataclasses.replace(found.cache, growth=growth)
    return dataclasses.replace(found, graphs=graphs, cache=cache)


@pytest.mark.parametrize(
    ("name", "parts", "version"),
    [
        ("embed", {}, 2), ("decoder", {}, 2), ("states", {}, 3),
        ("decoder", {"growth": "concatenated"}, 5), ("states", {"growth": "concatenated"}, 5),
        ("decoder", {"prompts": True}, 6), ("states", {"prompts": True}, 6),
        ("decoder", {"prompts": True, "growth": "concatenated"}, 6),
        ("embed", {"packed": True}, 7), ("whisper", {"packed": True}, 7), ("states", {"packed": True}, 7),
        ("decoder", {"packed": True, "prompts": True, "growth": "concatenated"}, 7),
    ],
)  # fmt: skip
def test_the_oldest_that_has_what_it_needs(tmp_path, name, parts, version):
    assert _schema_version(manifest(tmp_path, name, **parts)) == version
