"""Numbers and words of the manifest that docs/bundle.md gives."""

from __future__ import annotations

import re
from pathlib import Path

from triform.runtime.bundle import manifest

DOCS = (Path(__file__).parents[3] / "docs/bundle.md").read_text(encoding="utf-8")


def test_versions_are_those_of_the_docs():
    (row,) = re.findall(r"^\| `schema_version` \| (.*?)\. A reader", DOCS, re.MULTILINE)
    said = {what: int(version) for version, what in re.findall(r"(\d+) for ([^,]*)", row)}
    names = {
        "before its question": manifest.SCHEMA_VERSION, "packed weights": manifest.PACKED_SCHEMA_VERSION,
        "long prompts": manifest.PROMPTS_SCHEMA_VERSION,
        "by concatenation": manifest.GROWTH_SCHEMA_VERSION, "graphs for GPUs": manifest.GPU_SCHEMA_VERSION,
        "states of fixed size": manifest.STATES_SCHEMA_VERSION, "other bundle": manifest.OLDEST_SCHEMA_VERSION,
    }  # fmt: skip
    for end, version in names.items():
        assert [number for what, number in said.items() if what.endswith(end)] == [version], end


def test_graphs_and_schemes_are_called_as_in_the_docs():
    assert (manifest.MANIFEST, manifest.SIGNATURE) == ("manifest.json", "manifest.json.sig")
    assert set(manifest.SCHEMES) == {"none", "int8", "int4", "keep", "mixed"}


def test_what_older_manifests_do_not_say():
    """docs/bundle.md says what is absent; sentence-transformers pools a prompt's tokens."""
    cache = manifest.CacheInfo("float32", [])
    assert (cache.states, cache.growth, cache.uneven, cache.single) == ([], "in_place", True, False)
    assert manifest.EmbeddingInfo(4, "mean", False).include_prompt is True
    encoder = manifest.EncoderInfo()
    assert (encoder.labels, encoder.hidden_states, encoder.equal_lengths, encoder.min_length) == ([], 0, False, 1)
