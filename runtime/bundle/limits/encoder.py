"""Ranges of the values that describe an encoder's outputs."""

from __future__ import annotations

from collections.abc import Iterator

from triform.runtime.bundle.limits.contract import Limit, within
from triform.runtime.bundle.limits.media import image_limits
from triform.runtime.bundle.manifest import ContrastInfo, EmbeddingInfo, EncoderInfo

# There is a hidden state for each layer; no encoder has this many.
_MOST_LAYERS = 10_000
_WIDEST_VECTOR = 2**20
# Similarities times this are finite in float32.
_LARGEST_SCALE = 1e6


def encoder_limits(info: EncoderInfo, max_length: int) -> Iterator[Limit]:
    """Yield the rules for an encoder that reads up to `max_length` tokens."""
    yield within("encoder.hidden_states", info.hidden_states, 0, _MOST_LAYERS)
    yield within("encoder.min_length", info.min_length, 1, max(1, max_length))
    if info.embedding is not None:
        yield from _embedding_limits(info.embedding)
    if info.image is not None:
        yield from image_limits(info.image, "encoder.image")
    if info.contrast is not None:
        yield from _contrast_limits(info.contrast, max_length)


def _embedding_limits(info: EmbeddingInfo) -> Iterator[Limit]:
    yield within("encoder.embedding.dimension", info.dimension, 1, _WIDEST_VECTOR)
    name = info.default_prompt
    yield Limit("encoder.embedding.default_prompt", name, name is None or name in info.prompts, "one of the prompts")


def _contrast_limits(info: ContrastInfo, max_length: int) -> Iterator[Limit]:
    fits = 0 < info.scale <= _LARGEST_SCALE
    yield Limit("encoder.contrast.scale", info.scale, fits, f"above 0 and at most {_LARGEST_SCALE:g}")
    yield within("encoder.contrast.bias", info.bias, -_LARGEST_SCALE, _LARGEST_SCALE)
    yield within("encoder.contrast.text_length", info.text_length, 1, max_length)
