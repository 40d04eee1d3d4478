"""Ranges of token ids: special tokens, tokens of languages, and the code points of models without a vocabulary."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from triform.runtime.bundle.limits.contract import LARGEST, Limit, token_id, token_ids, within
from triform.runtime.bundle.manifest import Tokens
from triform.runtime.bundle.text_info import (
    TEMPLATE_ENGINES,
    CodePointsInfo,
    LanguagesInfo,
    SourceTextInfo,
    TokenizerInfo,
)


def token_limits(tokens: Tokens, vocab_size: int) -> Iterator[Limit]:
    """Yield the rules for special tokens; `vocab_size` is the size of the input vocabulary."""
    for name in ("bos", "pad", "mask"):
        yield token_id(f"tokens.{name}", getattr(tokens, name), vocab_size)
    yield from token_ids("tokens.eos", tokens.eos, vocab_size)


def tokenizer_limits(info: TokenizerInfo) -> Iterator[Limit]:
    """Yield the rules for a tokenizer."""
    points = info.code_points
    either = (info.file is None) == (points is not None)
    yield Limit("tokenizer.file", info.file, either, "a file, or null with code_points")
    engine, expected = info.template_engine, " or ".join(TEMPLATE_ENGINES)
    yield Limit("tokenizer.template_engine", engine, engine in TEMPLATE_ENGINES, expected)
    if points is not None:
        yield from _code_point_limits(points, "tokenizer.code_points")


def source_text_limits(info: SourceTextInfo, vocab_size: int, key: str) -> Iterator[Limit]:
    """Yield the rules for the tokenization of source texts.

    Args:
        info: the values.
        vocab_size: size of the output vocabulary; the input vocabulary has this size or that of `info.vocabulary`.
        key: of the values in the manifest.
    """
    yield within(f"{key}.vocabulary", info.vocabulary, 1, LARGEST)
    read = max(vocab_size, info.vocabulary or 0)
    yield token_id(f"{key}.unknown", info.unknown, read)
    if info.languages is not None:
        yield from _language_limits(info.languages, read, vocab_size, f"{key}.languages")


def _code_point_limits(info: CodePointsInfo, key: str) -> Iterator[Limit]:
    count = sys.maxunicode + 1
    for name in ("first", "separator"):
        yield token_id(f"{key}.{name}", getattr(info, name), count)
    for name in ("special", "strip_before"):
        yield from token_ids(f"{key}.{name}", getattr(info, name), count)
    # No model distinguishes more than two texts.
    yield within(f"{key}.second_type", info.second_type, 0, 1)


def _language_limits(info: LanguagesInfo, read: int, written: int, key: str) -> Iterator[Limit]:
    for place, source in [
        ("plain", info.plain),
        *((f"sources.{name}", language_info) for name, language_info in info.sources.items()),
    ]:
        yield from token_ids(f"{key}.{place}.prefix", source.prefix, read)
        yield from token_ids(f"{key}.{place}.suffix", source.suffix, read)
    for name, target in info.targets.items():
        yield from token_ids(f"{key}.targets.{name}.asked", target.asked, read)
        yield from token_ids(f"{key}.targets.{name}.forced", target.forced, written)
    for name, known in (("default_source", info.sources), ("default_target", info.targets)):
        language = getattr(info, name)
        yield Limit(f"{key}.{name}", language, language is None or language in known, "one of the languages listed")
