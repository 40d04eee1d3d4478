"""Leaves out of a manifest what a checkpoint asks for and no reader takes: defaults and special tokens out of range."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.limits.contract import Limit
from triform.runtime.bundle.limits.generation import generation_limits
from triform.runtime.bundle.limits.text import token_limits
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.printable import quoted

# How many tokens a note names.
_NAMED = 5


def unread_tokens(manifest: Manifest, folder: Path) -> list[str]:
    """A note of the tokens that a bundle's tokenizer has and its model does not read; none where it reads all.

    Args:
        manifest: of the bundle.
        folder: that has its tokenizer.
    """
    info = manifest.tokenizer
    if info is None or info.file is None:
        return []
    size = _tokens_read(manifest)
    ids = Tokenizer.from_file(str(folder / info.file)).get_vocab().items()
    beyond = [token for token, id_ in sorted(ids, key=lambda item: item[1]) if id_ >= size]
    if not beyond:
        return []
    named = f"{', '.join(map(quoted, beyond[:_NAMED]))}{', …' if len(beyond) > _NAMED else ''}"
    return [
        f"the tokenizer has tokens beyond the {size} that the model reads: {len(beyond)} ({named}); texts with one of "
        "them are refused"
    ]


def _tokens_read(manifest: Manifest) -> int:
    info = manifest.encoder_decoder
    return max(manifest.vocab_size, (info.text.vocabulary or 0) if info is not None else 0)


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
    read = _tokens_read(manifest)
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
