"""A recording in overlapping chunks: every frame comes once, from a chunk that hears what is around it."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.speech.ctc.chunks import chunks

# A frame for each 4 samples; chunks of 2.4 s are 60 samples, and 60 / 6 = 10 of them are rounded to 8, two frames.
RATE, STEP, LONGEST = 25, 4, 2.4
LENGTH, STRIDE = 60, 8


@pytest.mark.parametrize("count", [0, 1, 8, 59, 60, 61, 64, 103, 104, 105, 148, 400, 403])
@pytest.mark.parametrize("size", [7, 60, 500])
def test_every_frame_comes_once(count, size):
    samples = np.arange(count, dtype=np.float32)
    blocks = [samples[start : start + size] for start in range(0, count, size)]
    found = list(chunks(blocks, RATE, STEP, LONGEST))
    frames = []
    for index, part in enumerate(found):
        assert len(part.samples) <= LENGTH
        of_chunk = part.samples[: len(part.samples) // STEP * STEP : STEP] // STEP
        own = of_chunk[part.skipped :] if part.kept is None else of_chunk[part.skipped : part.skipped + part.kept]
        frames += own.tolist()
        last = index == len(found) - 1
        assert (part.kept is None) == last
        # Beside its own frames there are as many samples as are dropped, but at the ends of the recording.
        begin, end = part.skipped * STEP, (part.skipped + len(own)) * STEP
        assert begin == (0 if index == 0 else STRIDE)
        assert last or LENGTH - end == STRIDE
        assert part.end == pytest.approx((count if last else part.samples[0] + end) / RATE)
    assert frames == list(range(count // STEP))
    # The last chunk is the first that reaches the end, as in transformers' pipeline.
    assert len(found) == (1 + max(0, -(-(count - LENGTH) // (LENGTH - 2 * STRIDE))) if count else 0)


def test_a_chunk_is_no_shorter_than_a_frame():
    assert [len(part.samples) for part in chunks([np.zeros(10, np.float32)], RATE, STEP, 0.01)] == [4, 4, 2]
