"""Tensors of random blocks in any of GGUF's formats, with scales that leave a model's numbers of a usual size."""

from __future__ import annotations

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Format

from triform.export.checkpoint.gguf.container import Tensor

# Where blocks keep their half-precision factors, and how large each should be beside the others.
_HALVES = {
    Format.Q4_0: {0: 1}, Format.Q4_1: {0: 1, 2: -7}, Format.Q5_0: {0: 1 / 2}, Format.Q5_1: {0: 1 / 2, 2: -7},
    Format.Q8_0: {0: 1 / 16}, Format.Q2_K: {80: 1 / 2, 82: 1 / 2}, Format.Q3_K: {108: 1 / 16},
    Format.Q4_K: {0: 1 / 32, 2: 7 / 32}, Format.Q5_K: {0: 1 / 64, 2: 7 / 32}, Format.Q6_K: {208: 1 / 256},
    Format.IQ4_NL: {0: 1 / 16}, Format.IQ4_XS: {0: 1 / 256},
}  # fmt: skip


def random_tensor(kind: Format, rows: int, columns: int) -> Tensor:
    """Rows of blocks of random integers."""
    length, size = GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(int(kind))
    data = generator.integers(0, 256, (rows, columns // length, size)).astype(np.uint8)
    for start, share in _HALVES[kind].items():
        halves = (0.02 * share * generator.uniform(0.5, 1, data.shape[:2])).astype(np.float16)
        data[..., start : start + 2] = halves[..., None].view(np.uint8)
    return Tensor("weight", kind, (rows, columns), data.reshape(rows, -1))
