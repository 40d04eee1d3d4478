"""Ranges of all values in a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator

from triform.runtime.bundle.limits.contract import LARGEST, Limit, within
from triform.runtime.bundle.limits.encoder import encoder_limits
from triform.runtime.bundle.limits.encoder_decoder import encoder_decoder_limits
from triform.runtime.bundle.limits.generation import generation_limits
from triform.runtime.bundle.limits.graphs import cache_limits, export_limits, graph_limits, parity_limits
from triform.runtime.bundle.limits.text import token_limits, tokenizer_limits
from triform.runtime.bundle.manifest import Manifest

_SHA256 = re.compile("[0-9a-f]{64}")
# The largest file of a file system, in bytes.
_LARGEST_FILE = 2**63 - 1
# A bundle has a graph or two, a tokenizer or two, and a template.
_MOST_FILES = 1000


def limits(manifest: Manifest) -> Iterator[Limit]:
    """Yield every value whose range matters, and whether it is in range.

    Args:
        manifest: with values of the right types.

    Raises:
        Mismatch: a setting of a task is of another type than the model's own setting of that name.
    """
    yield within("schema_version", manifest.schema_version, 1)
    yield from _size_limits(manifest)
    yield from token_limits(manifest.tokens, _vocabulary_read(manifest))
    if manifest.tokenizer is not None:
        yield from tokenizer_limits(manifest.tokenizer)
    if manifest.cache is not None:
        yield from cache_limits(manifest.cache, manifest.target)
    for name, graph in manifest.graphs.items():
        yield from graph_limits(f"graphs.{name}", graph)
    if manifest.gpu is not None:
        yield Limit("gpu", "given", manifest.target == "cpu", "absent where graphs are for GPUs")
        for name, graph in manifest.gpu.graphs.items():
            yield from graph_limits(f"gpu.graphs.{name}", graph)
        if manifest.gpu.parity is not None:
            yield from parity_limits(manifest.gpu.parity, "gpu.parity")
    yield from generation_limits(manifest.generation, manifest.vocab_size)
    if manifest.encoder is not None:
        yield from encoder_limits(manifest.encoder, manifest)
    if manifest.encoder_decoder is not None:
        yield from encoder_decoder_limits(manifest.encoder_decoder, manifest)
    yield from export_limits(manifest.export, _vocabulary_read(manifest))
    yield from _file_limits(manifest)


def _size_limits(manifest: Manifest) -> Iterator[Limit]:
    has_vocabulary = manifest.tokenizer is not None
    # An encoder of audio writes text, and reads none.
    reads = has_vocabulary and (manifest.encoder is None or manifest.encoder.audio is None)
    # At least a token of a prompt and one of an answer; a model that reads no text has neither tokens nor a vocabulary.
    yield within("max_length", manifest.max_length, 2 if reads else 0, LARGEST if reads else 0)
    yield within("vocab_size", manifest.vocab_size, 1 if has_vocabulary else 0, LARGEST if has_vocabulary else 0)
    yield within("parameters", manifest.parameters, 0, _LARGEST_FILE)


def _vocabulary_read(manifest: Manifest) -> int:
    """The size of the input vocabulary, which may be larger than the output vocabulary."""
    info = manifest.encoder_decoder
    return max(manifest.vocab_size, (info.text.vocabulary or 0) if info is not None else 0)


def _file_limits(manifest: Manifest) -> Iterator[Limit]:
    count = len(manifest.files)
    yield Limit("files", f"{count} files", count <= _MOST_FILES, f"at most {_MOST_FILES} files")
    for name, info in manifest.files.items():
        yield within(f"files.{name}.size", info.size, 0, _LARGEST_FILE)
        fits = _SHA256.fullmatch(info.sha256) is not None
        yield Limit(f"files.{name}.sha256", info.sha256, fits, "64 hexadecimal digits")
