"""Ranges of the values that describe an encoder's outputs."""

from __future__ import annotations

from collections.abc import Iterator

from triform.runtime.bundle.limits.contract import Limit, token_id, within
from triform.runtime.bundle.limits.media import audio_limits, ctc_limits, image_limits
from triform.runtime.bundle.manifest import ContrastInfo, EmbeddingInfo, EncoderInfo, Manifest
from triform.runtime.bundle.text_info import BoxesInfo

# There is a hidden state for each layer; no encoder has this many.
_MOST_LAYERS = 10_000
_WIDEST_VECTOR = 2**20
# A second of audio at the highest sampling rate; models need some hundredths of one.
_LONGEST_MINIMUM = 1_000_000
# Coordinates look up embeddings, or become angles in float32.
_LARGEST_PAGE = 2**16
# Similarities times this are finite in float32.
_LARGEST_SCALE = 1e6


def encoder_limits(info: EncoderInfo, manifest: Manifest) -> Iterator[Limit]:
    """Yield the rules for an encoder.

    Args:
        info: the values.
        manifest: that they belong to.
    """
    max_length = manifest.max_length
    yield within("encoder.hidden_states", info.hidden_states, 0, _MOST_LAYERS)
    longest = max(1, max_length) if info.audio is None else _LONGEST_MINIMUM
    yield within("encoder.min_length", info.min_length, 1, longest)
    if info.embedding is not None:
        yield from _embedding_limits(info.embedding)
    if info.image is not None:
        yield from image_limits(info.image, "encoder.image")
    if info.audio is not None:
        yield from audio_limits(info.audio, "encoder.audio")
    if info.ctc is not None:
        yield from ctc_limits(info.ctc, info.min_length, manifest.vocab_size, "encoder.ctc")
    if info.contrast is not None:
        yield from _contrast_limits(info.contrast, max_length)
    if info.boxes is not None:
        yield from _boxes_limits(info.boxes, manifest.vocab_size)


def _embedding_limits(info: EmbeddingInfo) -> Iterator[Limit]:
    yield within("encoder.embedding.dimension", info.dimension, 1, _WIDEST_VECTOR)
    name = info.default_prompt
    yield Limit("encoder.embedding.default_prompt", name, name is None or name in info.prompts, "one of the prompts")


def _contrast_limits(info: ContrastInfo, max_length: int) -> Iterator[Limit]:
    fits = 0 < info.scale <= _LARGEST_SCALE
    yield Limit("encoder.contrast.scale", info.scale, fits, f"above 0 and at most {_LARGEST_SCALE:g}")
    yield within("encoder.contrast.bias", info.bias, -_LARGEST_SCALE, _LARGEST_SCALE)
    yield within("encoder.contrast.text_length", info.text_length, 1, max_length)


def _boxes_limits(info: BoxesInfo, vocab_size: int) -> Iterator[Limit]:
    yield within("encoder.boxes.scale", info.scale, 1, _LARGEST_PAGE)
    for index, special in enumerate(info.special):
        key = f"encoder.boxes.special[{index}]"
        yield token_id(f"{key}.token", special.token, vocab_size)
        fits = len(special.box) == 4 and all(0 <= value <= info.scale for value in special.box)
        yield Limit(f"{key}.box", special.box, fits, f"four numbers from 0 to {info.scale}")
