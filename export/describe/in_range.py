"""Leaves out of a manifest what a checkpoint asks for and no reader takes: defaults and special tokens out of range."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.limits.contract import Limit
from triform.runtime.bundle.limits.generation import generation_limits
from triform.runtime.bundle.limits.text import token_limits
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.printable import quoted


def in_range(manifest: Manifest) -> tuple[Manifest, list[str]]:
    """A manifest without generation defaults and special tokens that are out of range.

    Returns:
        the manifest, and a note of each value that was left out.
    """
    manifest, token_notes = _with_tokens(manifest)
    defaults, notes = _with_defaults(manifest.generation, manifest.vocab_size)
    return dataclasses.replace(manifest, generation=defaults), [*token_notes, *notes]


def _with_defaults(defaults: GenerationDefaults, vocab_size: int) -> tuple[GenerationDefaults, list[str]]:
    unset, notes = GenerationDefaults(), []
    for limit in _unfit(generation_limits(defaults, vocab_size)):
        name = re.split(r"[.\[]", limit.key)[1]
        notes.append(_note(f"generation default {name}", limit))
        defaults = dataclasses.replace(defaults, **{name: getattr(unset, name)})
    return defaults, notes


def _with_tokens(manifest: Manifest) -> tuple[Manifest, list[str]]:
    tokens, notes = manifest.tokens, []
    info = manifest.encoder_decoder
    read = max(manifest.vocab_size, (info.text.vocabulary or 0) if info is not None else 0)
    for limit in _unfit(token_limits(tokens, read)):
        name = re.split(r"[.\[]", limit.key)[1]
        notes.append(_note(f"{name} token", limit))
        if name != "eos":
            unset: dict[str, Any] = {name: None}
            tokens = dataclasses.replace(tokens, **unset)
    kept = [token for token in tokens.eos if 0 <= token < read]
    ends = [token for token in manifest.export.end_tokens if token.id in kept]
    export = dataclasses.replace(manifest.export, end_tokens=ends)
    return dataclasses.replace(manifest, tokens=dataclasses.replace(tokens, eos=kept), export=export), notes


def _unfit(limits: Iterator[Limit]) -> list[Limit]:
    return [limit for limit in limits if not limit.fits]


def _note(what: str, limit: Limit) -> str:
    return f"left out the {what}: it must be {limit.allowed}, not {quoted(limit.value)}"
