"""Reads and checks a manifest: a damaged or malicious one is refused with an error of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from triform.runtime.bundle.agreement import disagreements
from triform.runtime.bundle.limits.every import limits
from triform.runtime.bundle.manifest import CHECKSUM, MANIFEST, OLDEST_SCHEMA_VERSION, SCHEMA_VERSION, Manifest
from triform.runtime.bundle.targets import manifests
from triform.runtime.checked_json import Mismatch, build, is_whole
from triform.runtime.errors import BundleError
from triform.runtime.printable import quoted, shortened

# In bytes: far above any real manifest (about 1 kB per layer), far below the memory of a small device.
_LARGEST = 16 * 2**20
# In characters. Reasons contain names from the manifest, which may have any length.
_LONGEST_REASON = 400


def read_manifest(folder: Path) -> Manifest:
    """Read and check a bundle's manifest.

    Raises:
        BundleError: the manifest is missing, damaged, not JSON or of another schema; it lacks a key, has a value of a
            wrong type or out of range, or contradicts the tensors of its graphs.
    """
    path = folder / MANIFEST
    data = _read_bytes(folder, path)
    content = _parse(data, path)
    _check_schema(content.get("schema_version"), path)
    try:
        _check_whole(data, content, path)
        manifest: Manifest = build(Manifest, content)
        for key, value, fits, expected in limits(manifest):
            if not fits:
                raise Mismatch(f"{key} must be {expected}, not {quoted(value)}")
        _check_references(manifest)
        for one_target in manifests(manifest):
            for disagreement in disagreements(one_target):
                raise Mismatch(disagreement)
    except Mismatch as mismatch:
        reason = shortened(str(mismatch), _LONGEST_REASON)
        raise BundleError(f"{path}: {reason}; export the model again") from None
    return manifest


def _read_bytes(folder: Path, path: Path) -> bytes:
    try:
        if not path.is_file():
            raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > _LARGEST:
        raise BundleError(f"{path} is larger than any manifest ({_LARGEST} bytes); export the model again")
    return data


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not UTF-8 text; export the model again") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the model again") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} must hold a JSON object; export the model again")
    return content


def _check_schema(version: object, path: Path) -> None:
    if isinstance(version, int) and not OLDEST_SCHEMA_VERSION <= version <= SCHEMA_VERSION:
        newer = version > SCHEMA_VERSION
        made, remedy = ("a newer", "upgrade") if newer else ("an older", "export the model again")
        raise BundleError(
            f"{path} has schema version {quoted(version)}, made by {made} Triform; "
            f"this one reads versions {OLDEST_SCHEMA_VERSION} to {SCHEMA_VERSION}: {remedy}"
        )


def _check_whole(data: bytes, content: dict[str, Any], path: Path) -> None:
    checksum = content.get(CHECKSUM)
    if not isinstance(checksum, str):
        raise Mismatch(f"the key {CHECKSUM} is missing")
    if not is_whole(data, checksum):
        raise BundleError(f"{path} is damaged: its SHA-256 differs; copy the bundle again")


def _check_references(manifest: Manifest) -> None:
    named: dict[str, str | None] = {}
    if manifest.tokenizer is not None:
        named["tokenizer.file"] = manifest.tokenizer.file
        named["tokenizer.chat_template"] = manifest.tokenizer.chat_template
        templates = manifest.tokenizer.chat_templates
        named |= {f"tokenizer.chat_templates.{name}": file for name, file in templates.items()}
    if manifest.encoder_decoder is not None:
        named["encoder_decoder.text.target_file"] = manifest.encoder_decoder.text.target_file
    for one_target in manifests(manifest):
        for graph, info in one_target.graphs.items():
            key = f"gpu.graphs.{graph}" if one_target.target != manifest.target else f"graphs.{graph}"
            named |= {f"{key}.file": info.file, f"{key}.data": info.data, f"{key}.packed": info.packed}
    for key, name in named.items():
        if name is not None and name not in manifest.files:
            raise Mismatch(f"{key} names {quoted(name)}, which files does not list")
