"""Manifests of every form, as exports of the small models of these tests wrote them, with one number changed.

Each number is set to what it cannot be. It must be refused in one line that names its key, or be a number that every
reader ignores.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.helpers.bundles import sealed
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.errors import BundleError

FILES = sorted((Path(__file__).parent / "manifests").glob("*.json"))
# Not a number of any kind, and none that a tensor, a file or a context has.
NEVER = {"NaN": math.nan, "infinity": math.inf, "huge": 10**30, "far below 0": -(10**30), "a text": "7", "a list": [7]}
# The only numbers that may be below 0.
MAY_BE_NEGATIVE = {"bias", "mean", "padding_value", "length_penalty", "cosine_mean", "cosine_worst"}
# Sizes, counts, rates and divisors.
NEVER_ZERO = {
    "head_dim", "num_key_value_heads", "max_length", "vocab_size", "shape", "dimension", "height", "width", "channels",
    "resize", "crop", "rescale", "std", "scale of contrast", "text_length", "min_length of encoder", "sampling_rate",
    "feature_size", "chunk_length", "win_length", "n_fft", "hop_length", "max_source_length", "vocabulary", "bits",
    "block_size", "sensitive_block_size", "num_beams", "num_beam_groups", "max_new_tokens", "repetition_penalty",
    "encoder_repetition_penalty", "operators",
}  # fmt: skip
# What a model's config may ask for, whether or not one of the models here does.
DEFAULTS = [item.name for item in fields(GenerationDefaults) if re.fullmatch(r"(int|float)( \| None)?", str(item.type))]


def numbers(value, path=()):
    """Where there are numbers."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(item, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def kind(path):
    """The same for numbers that one rule is for: those of another layer, file, language or operator."""
    joined = ".".join(str(part) for part in path)
    for name in ("files", "operators", "seconds", "sources", "targets", "languages", "tasks"):
        joined = re.sub(rf"\b{name}\.[^.]+", f"{name}.*", joined)
    return re.sub(r"\.\d+\b", ".#", joined)


def every_kind():
    """One number of each kind in a manifest that has it."""
    found = {}
    for file in FILES:
        for path in numbers(json.loads(file.read_text(encoding="utf-8"))):
            found.setdefault(kind(path), (file, path))
    return found | {f"generation.{name}": (FILES[0], ("generation", name)) for name in DEFAULTS}


KINDS = every_kind()


def read(folder, file, path, value):
    content = json.loads(file.read_text(encoding="utf-8"))
    *way, last = path
    place = content
    for key in way:
        place = place[key]
    place[last] = value
    (folder / "manifest.json").write_text(sealed(content), encoding="utf-8")
    return read_manifest(folder)


def refusal(folder, file, path, value):
    with pytest.raises(BundleError) as caught:
        read(folder, file, path, value)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700
    assert key(path) in message.replace("schema version", "schema_version")


def key(path):
    return next(part for part in reversed(path) if isinstance(part, str))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_as_it_was_written(tmp_path, file):
    (tmp_path / "manifest.json").write_bytes(file.read_bytes())
    content = json.loads(file.read_bytes())
    manifest = read_manifest(tmp_path)
    assert (manifest.form, manifest.task) == (content["form"], content["task"])
    assert without_nulls(json.loads(manifest.to_json())["graphs"]) == without_nulls(content["graphs"])


def without_nulls(value):
    """A key that is null says as much as one that an older manifest does not have."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def test_the_documented_versions_are_read_and_no_others(tmp_path):
    for version in range(2, 9):
        assert read(tmp_path, FILES[0], ("schema_version",), version).schema_version == version
    for version, remedy in ((1, "an older Triform.*: export the model again"), (9, "a newer Triform.*: upgrade")):
        with pytest.raises(BundleError, match=f"schema version {version}, made by {remedy}"):
            read(tmp_path, FILES[0], ("schema_version",), version)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_number_is_without_limits(tmp_path, name):
    file, path = KINDS[name]
    for value in NEVER.values():
        # A size of a tensor may be a name; the graph says whether it is.
        if not (isinstance(value, str) and "shape" in path):
            refusal(tmp_path, file, path, value)
    if key(path) not in MAY_BE_NEGATIVE:
        refusal(tmp_path, file, path, -1)
    parent = path[-2] if len(path) > 1 else None
    if not NEVER_ZERO.isdisjoint({key(path), f"{key(path)} of {parent}", parent}):
        refusal(tmp_path, file, path, 0)


# What a manifest says of its model, and what the tensors of its graphs contradict.
CLAIMS = [
    ("embed", ("encoder", "embedding", "dimension"), 47, "encoder.embedding.dimension must be 48 as in sentence_emb"),
    ("embed", ("encoder", "embedding", "include_prompt"), False, "include_prompt must be false where the graph takes"),
    ("embed", ("encoder", "embedding", "default_prompt"), "passages", "default_prompt must be one of the prompts"),
    ("embed", ("encoder", "embedding"), None, "encoder.embedding.dimension must be 48 as in sentence_embedding"),
    ("clip", ("encoder", "embedding", "dimension"), 36, "encoder.embedding.dimension must be 20 as in"),
    ("decoder", ("cache", "growth"), "in_pieces", "cache.growth must be in_place or concatenated"),
    ("states", ("cache", "growth"), "concatenated", "cache.growth must be in_place for this model"),
    ("decoder", ("cache", "uneven"), False, "cache.uneven must be true where a cache grows in place"),
    ("clip", ("encoder", "contrast"), None, "graphs must be"),
    ("clip", ("encoder", "image"), None, "encoder.image must be given where a graph takes pixel_values"),
    ("vit", ("encoder", "image", "width"), 39, "encoder.image"),
    (
        "patches",
        ("encoder", "image", "patches", "count"),
        24,
        "encoder.image.patches.count must be as in batch, 23, 75",
    ),
    ("patches", ("encoder", "image", "patches"), None, "encoder.image.height"),
    ("mel-deltas", ("encoder", "audio", "stacked"), 3, "feature_size must be batch, sequence, 320"),
    ("mel-deltas", ("encoder", "audio", "deltas"), None, "encoder.audio.deltas must be given for the kind mel_deltas"),
    ("mel-deltas", ("encoder", "audio", "kind"), "mel", "encoder.audio.mel must be given for the kind mel"),
    ("vit", ("encoder", "labels"), ["cat", "dog"], "encoder.labels must be as many as 7 as in logits"),
    ("classify", ("encoder", "labels"), ["cat", "dog"], "encoder.labels must be as many as 3 as in logits"),
    ("classify", ("encoder", "labels"), [], "encoder.labels must be as many as 3 as in logits"),
    ("tag", ("encoder", "labels"), list("abcd"), "encoder.labels must be as many as 3 as in logits"),
    ("tag", ("encoder", "hidden_states"), 2, "encoder.hidden_states must be 3, as many as graphs give"),
    ("tag", ("task",), "question-answering", "start_logits is among them"),
    ("canine", ("encoder", "equal_lengths"), False, "encoder.equal_lengths must be true where nothing hides padding"),
    ("fill-mask", ("vocab_size",), 301, "vocab_size must be 300 as in logits"),
    ("fill-mask", ("task",), "text-generation", "encoder.labels must be as many as 300 as in logits"),
    ("t5", ("form",), "encoder", "graphs must be ['encoder'], not ['decoder', 'encoder']"),
    ("whisper", ("encoder_decoder", "audio", "hop_length"), 80, "hop_length must be such that a chunk has the frames"),
    ("whisper", ("encoder_decoder", "audio", "chunk_length"), 9, "a chunk has the frames of"),
    ("whisper", ("encoder_decoder", "audio", "sampling_rate"), 8000, "a chunk has the frames of"),
    ("whisper", ("encoder_decoder", "audio", "feature_size"), 13, "feature_size must be"),
    ("whisper", ("encoder_decoder", "audio", "kind"), "fbank", "audio"),
    ("whisper", ("encoder_decoder", "audio", "n_fft"), 40, "audio"),
]


@pytest.mark.parametrize(("name", "path", "value", "message"), CLAIMS)
def test_what_is_said_of_a_model_is_held_to_its_graphs(tmp_path, name, path, value, message):
    with pytest.raises(BundleError) as caught:
        read(tmp_path, FILES[0].with_stem(name), path, value)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_hash_of_a_manifest(tmp_path):
    """Every bit of it counts, those that change nothing for a reader too."""
    data = FILES[0].read_bytes()
    for place in range(5, len(data), 97):
        (tmp_path / "manifest.json").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(BundleError):
            read_manifest(tmp_path)
    content = json.loads(data)
    (tmp_path / "manifest.json").write_text(json.dumps(content, indent=1))
    with pytest.raises(BundleError, match=r"manifest.json is damaged: its SHA-256 differs; copy the bundle again"):
        read_manifest(tmp_path)
    del content["manifest_sha256"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="the key manifest_sha256 is missing"):
        read_manifest(tmp_path)


def test_names_of_any_length_are_not_quoted_whole(tmp_path):
    content = json.loads(FILES[0].read_text(encoding="utf-8"))
    for name in ("x" * 5000, "\x1b]0;" + "y" * 3000):
        files = {**content["files"], name: {"size": -1, "sha256": name}}
        (tmp_path / "manifest.json").write_text(sealed({**content, "files": files}), encoding="utf-8")
        with pytest.raises(BundleError) as caught:
            read_manifest(tmp_path)
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable()


def test_a_manifest_that_is_larger_than_any(tmp_path):
    """16 MiB; blanks behind the object are no part of it."""
    content, path = FILES[0].read_bytes(), tmp_path / "manifest.json"
    path.write_bytes(content.ljust(16 * 2**20 + 1))
    with pytest.raises(BundleError, match=r"is larger than any manifest \(16777216 bytes\)"):
        read_manifest(tmp_path)
    path.write_bytes(content.ljust(16 * 2**20))
    with pytest.raises(BundleError, match="is damaged: its SHA-256 differs"):
        read_manifest(tmp_path)
