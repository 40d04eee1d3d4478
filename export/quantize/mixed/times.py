"""How long products take by the kind of their blocks: one of the costs that bytes are weighed with.

Times are relative to 4 bits in blocks of 64. They hardly depend on the shape: `python -m benchmarks.product_times`
measures them on shapes of small and large models, and gives the median. A table and not the machine that exports: a
checkpoint becomes the same bundle everywhere.
"""

from __future__ import annotations

from triform.export.quantize.blockwise import operator_bits

# By bits of the operator and block size: with 1 row, as in decoding, 4, as in batches, and 512, as in prompts. Two
# cores of an AMD EPYC with AVX-512 VNNI, onnxruntime 1.32.
_TIMES = {
    (4, 64): (1.0, 1.0, 1.0),
    (4, 32): (1.25, 1.08, 1.07),
    (4, 16): (2.49, 1.68, 1.23),
    (8, 128): (1.15, 0.96, 0.73),
    (8, 64): (1.28, 1.06, 0.85),
    (8, 32): (1.56, 1.24, 0.94),
    (8, 16): (2.02, 1.48, 0.97),
}
# Most of the time of an answer is spent on single rows.
_SHARES = (0.5, 0.25, 0.25)


def product_time(bits: int, block_size: int) -> float:
    """What a product takes for each weight, in what it takes in 4 bits with blocks of 64.

    Args:
        bits: that are stored; the operator reads them as 4 or 8.
        block_size: 16 to 64, or 128 where the operator reads 8 bits.
    """
    times = _TIMES[operator_bits(bits), block_size]
    return sum(share * time for share, time in zip(_SHARES, times, strict=True))
