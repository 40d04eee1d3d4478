"""Cuts a recording of any length into overlapping chunks, in constant memory.

Source: transformers' AutomaticSpeechRecognitionPipeline with ``chunk_length_s`` and a stride of a sixth of it: the
frames at both ends of a chunk, which see little of what is around them, are dropped, because the neighbors have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from triform.runtime.media.sound_files import Samples

# Of a chunk, what is dropped at each end.
_STRIDE = 1 / 6


@dataclass(frozen=True)
class Chunk:
    """A part of a recording.

    Attributes:
        samples: float32 (samples).
        skipped: frames at its beginning that belong to the chunk before.
        kept: frames after these that count; None for all that are left.
        end: where its own part ends, in seconds from the recording's beginning.
    """

    samples: Samples
    skipped: int
    kept: int | None
    end: float


def chunks(blocks: Iterable[Samples], rate: int, step: int, longest: float) -> Iterator[Chunk]:
    """Yield a recording's chunks.

    Args:
        blocks: float32 (samples) each.
        rate: samples per second.
        step: samples from one frame of logits to the next.
        longest: seconds of a chunk, at most.
    """
    length = max(1, int(longest * rate / step)) * step
    stride = round(length * _STRIDE / step) * step
    held, start = np.zeros(0, np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > length:
            skipped = stride if start else 0
            end = start + length - stride
            yield Chunk(held[:length], skipped // step, (length - stride - skipped) // step, end / rate)
            start += length - 2 * stride
            held = held[length - 2 * stride :]
    skipped = stride if start else 0
    if len(held) > skipped:
        yield Chunk(held, skipped // step, None, (start + len(held)) / rate)
