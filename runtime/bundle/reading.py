"""Reading a manifest: everything a damaged or hostile one could hold is refused here, in one line."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triform.runtime.bundle.generation_defaults import generation_limits
from triform.runtime.bundle.manifest import MANIFEST, RELEVANCE, SCHEMA_VERSION, Manifest
from triform.runtime.bundle.media_info import RESAMPLING, ImageInfo
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import BundleError
from triform.runtime.json_dataclasses import Mismatch, build

# Far above any real manifest (about 1 kB a layer), far below what would trouble a small device.
_LARGEST = 16 * 2**20
_SHA256 = re.compile("[0-9a-f]{64}")


def read_manifest(folder: Path) -> Manifest:
    """Read and check a bundle's manifest.

    Raises:
        BundleError: it is missing, is not JSON, is of a newer schema, lacks a key, or has a value of a wrong type or
            out of range.
    """
    path = folder / MANIFEST
    content = _read_json(folder, path)
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}, made by a newer Triform; "
            f"this one reads up to {SCHEMA_VERSION}: upgrade"
        )
    try:
        manifest: Manifest = build(Manifest, content)
        for key, value, fits, wanted in _limits(manifest):
            if not fits:
                raise Mismatch(f"{key} must be {wanted}, not {value!r}")
        _check_references(manifest)
    except Mismatch as mismatch:
        raise BundleError(f"{path}: {mismatch}; export the model again") from None
    return manifest


def _read_json(folder: Path, path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise BundleError(f"{path} is larger than any manifest ({_LARGEST} bytes); export the model again")
        text = data.decode("utf-8")
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not UTF-8 text; export the model again") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the model again") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} must hold a JSON object; export the model again")
    return content


def _limits(manifest: Manifest) -> Iterator[tuple[str, object, bool, str]]:
    """Every value whose range matters: its key, itself, whether it fits, and what would."""
    yield "schema_version", manifest.schema_version, manifest.schema_version >= 1, "at least 1"
    if manifest.tokenizer is not None:
        # One token of prompt and one of answer.
        yield "max_length", manifest.max_length, manifest.max_length >= 2, "at least 2"
        yield "vocab_size", manifest.vocab_size, manifest.vocab_size >= 1, "at least 1"
        yield from _tokenizer_limits(manifest.tokenizer)
    if manifest.cache is not None:
        dtype, layers = manifest.cache.dtype, manifest.cache.layers
        yield "cache.dtype", dtype, dtype == "float32", "float32"
        yield "cache.layers", layers, len(layers) > 0, "a list of at least one layer"
        for index, layer in enumerate(layers):
            heads, width = layer.num_key_value_heads, layer.head_dim
            yield f"cache.layers[{index}].num_key_value_heads", heads, heads >= 1, "at least 1"
            yield f"cache.layers[{index}].head_dim", width, width >= 1, "at least 1"
    if manifest.encoder is not None:
        yield "encoder.min_length", manifest.encoder.min_length, manifest.encoder.min_length >= 1, "at least 1"
    if manifest.encoder is not None and manifest.encoder.relevance is not None:
        relevance = manifest.encoder.relevance
        yield "encoder.relevance", relevance, relevance in RELEVANCE, " or ".join(RELEVANCE)
    if manifest.encoder is not None and manifest.encoder.image is not None:
        yield from _image_limits(manifest.encoder.image)
    if manifest.encoder is not None and manifest.encoder.contrast is not None:
        scores = manifest.encoder.contrast.scores
        yield "encoder.contrast.scores", scores, scores in ("softmax", "sigmoid"), "softmax or sigmoid"
    yield from generation_limits(manifest.generation)
    for name, info in manifest.files.items():
        yield f"files.{name}.size", info.size, info.size >= 0, "0 or more"
        yield f"files.{name}.sha256", info.sha256, bool(_SHA256.fullmatch(info.sha256)), "64 hexadecimal digits"


def _tokenizer_limits(info: TokenizerInfo) -> Iterator[tuple[str, object, bool, str]]:
    points = info.code_points
    yield "tokenizer.file", info.file, (info.file is None) == (points is not None), "a file, or null with code_points"
    if points is not None:
        ids = [points.first, points.separator, *points.special, *points.strip_before]
        yield "tokenizer.code_points", ids, all(0 <= one <= sys.maxunicode for one in ids), "code points"


def _image_limits(info: ImageInfo) -> Iterator[tuple[str, object, bool, str]]:
    size = [info.height, info.width]
    yield "encoder.image.channels", info.channels, info.channels == 3, "3"
    yield "encoder.image.height", info.height, info.height >= 1, "at least 1"
    yield "encoder.image.width", info.width, info.width >= 1, "at least 1"
    yield "encoder.image.resample", info.resample, info.resample in RESAMPLING, " or ".join(RESAMPLING)
    resize, crop = info.resize, info.crop
    fits = len(resize) in (1, 2) and (min(resize) >= 1)
    last = crop if crop is not None else resize
    yield "encoder.image.resize", resize, fits, "one or two numbers of at least 1"
    yield "encoder.image.crop", crop, last == size, f"such that pictures end up as {size}"
    yield "encoder.image.crop", crop, all(a <= b for a, b in zip(size, resize * 2, strict=False)), "within resize"
    for name, values in (("mean", info.mean), ("std", info.std)):
        fits = values is None or (len(values) == info.channels and all(map(math.isfinite, values)))
        yield f"encoder.image.{name}", values, fits, "a number for each channel"


def _check_references(manifest: Manifest) -> None:
    named: dict[str, str | None] = {}
    if manifest.tokenizer is not None:
        named["tokenizer.file"] = manifest.tokenizer.file
        named["tokenizer.chat_template"] = manifest.tokenizer.chat_template
    for graph, info in manifest.graphs.items():
        named |= {f"graphs.{graph}.file": info.file, f"graphs.{graph}.data": info.data}
    for key, name in named.items():
        if name is not None and name not in manifest.files:
            raise Mismatch(f"{key} names {name!r}, which files does not list")
