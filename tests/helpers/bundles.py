"""Bundles that are changed on purpose, with hashes that agree with the change: past those checks, on to the others."""

from __future__ import annotations

import hashlib
import json


def read_manifest_json(bundle):
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


def sealed(content):
    """The text of a manifest with its own hash, as docs/bundle.md defines it."""
    before, mark, after = json.dumps({**content, "manifest_sha256": ""}).rpartition('"manifest_sha256": "')
    digest = hashlib.sha256(f"{before}{mark}{64 * '0'}{after}".encode()).hexdigest()
    return f"{before}{mark}{digest}{after}"


def write_manifest(bundle, content):
    (bundle / "manifest.json").write_text(sealed(content), encoding="utf-8")


def change(bundle, **entries):
    """Other values under the manifest's keys."""
    write_manifest(bundle, {**read_manifest_json(bundle), **entries})


def adopt(bundle, name, content):
    """Other content under a file's name."""
    (bundle / name).write_bytes(content)
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change(bundle, files={**read_manifest_json(bundle)["files"], name: entry})
