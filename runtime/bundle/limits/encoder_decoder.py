"""Ranges of the values that describe an encoder-decoder's sources and the start of decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.limits.contract import LARGEST, Limit, token_id, within
from triform.runtime.bundle.limits.generation import generation_limits
from triform.runtime.bundle.limits.media import audio_limits, image_limits, speech_limits
from triform.runtime.bundle.limits.text import source_text_limits
from triform.runtime.bundle.manifest import EncoderDecoderInfo, Manifest
from triform.runtime.checked_json import build

_KEY = "encoder_decoder"


def encoder_decoder_limits(info: EncoderDecoderInfo, manifest: Manifest) -> Iterator[Limit]:
    """Yield the rules for an encoder-decoder.

    Args:
        info: the values.
        manifest: the manifest they belong to.

    Raises:
        Mismatch: a setting of a task is of another type than the model's own setting of that name.
    """
    yield token_id(f"{_KEY}.decoder_start", info.decoder_start, manifest.vocab_size)
    yield within(f"{_KEY}.max_source_length", info.max_source_length, 1, LARGEST)
    yield from source_text_limits(info.text, manifest.vocab_size, f"{_KEY}.text")
    for name in info.tasks:
        key = f"{_KEY}.tasks.{name}.generation"
        yield from generation_limits(task_defaults(manifest, name), manifest.vocab_size, key)
    if info.audio is not None:
        yield from audio_limits(info.audio, f"{_KEY}.audio")
    if info.image is not None:
        yield from image_limits(info.image, f"{_KEY}.image")
        patches = info.image.patches is not None
        yield Limit(f"{_KEY}.image.patches", patches, not patches, "null for an encoder-decoder")
    if info.speech is not None:
        layers = len(manifest.cache.layers) if manifest.cache is not None else 0
        yield from speech_limits(info.speech, manifest.vocab_size, layers, f"{_KEY}.speech")


def task_defaults(manifest: Manifest, task: str) -> GenerationDefaults:
    """Return the generation defaults for one of the model's tasks: its own settings, else the model's.

    Unknown settings are ignored.

    Args:
        manifest: of an encoder-decoder that has the task.
        task: its name.

    Raises:
        Mismatch: a setting is of another type than the model's own setting of that name.
    """
    own = manifest.encoder_decoder.tasks[task].generation if manifest.encoder_decoder is not None else {}
    settings = {**dataclasses.asdict(manifest.generation), **own}
    defaults: GenerationDefaults = build(GenerationDefaults, settings, f"{_KEY}.tasks.{task}.generation")
    return defaults
