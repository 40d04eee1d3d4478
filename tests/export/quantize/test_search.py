"""The search for scales gives what its formula does, bit for bit, whatever the shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from triform.export.quantize import blockwise
from triform.export.quantize.blockwise import dequantize, quantize_matrix

FRACTIONS = (0.7, 0.76, 0.82, 0.88, 0.94, 1.0)


def by_formula(weight, importance, bits, size):
    """Integers (size, blocks), and scales and zero points (blocks,): each candidate for all blocks, the best kept."""
    levels, missing = 2**bits - 1, -weight.shape[1] % size
    channel = torch.ones(weight.shape[1]) if importance is None else importance / importance.mean()
    channel = pad(channel + 1e-4, (0, missing)).expand(len(weight), -1).reshape(-1, size).T.contiguous()
    w = pad(weight.float(), (0, missing)).reshape(-1, size).T.contiguous()
    low = w.amin(0).clamp(max=0)
    span = (w.amax(0).clamp(min=0) - low).clamp(min=1e-12)
    best, chosen = torch.full_like(span, -torch.inf), None
    tried = (0.8, 1.0) if importance is None else FRACTIONS
    for fraction in tried if bits == 4 else (1.0,):
        step = span * (fraction / levels)
        zero = (-low * fraction / step).round().clamp(0, levels)
        q = (w / step).round().clamp(-zero, levels - zero)
        dot, norm = (q * (w * channel)).sum(0), (q * q * channel).sum(0)
        scale = torch.where(norm > 0, dot / norm.clamp(min=1e-30), 1.0)
        halves = scale.half().float()
        scale = torch.where((scale >= 2.0**-14) & halves.isfinite(), halves, scale)
        gain = scale * (2 * dot - scale * norm)
        found = torch.stack([scale, zero, step])
        chosen = found if chosen is None else torch.where(gain > best, found, chosen)
        best = torch.maximum(best, gain)
    scale, zero, step = chosen
    return (w / step).round().add(zero).clamp(0, levels), scale, zero


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (7, 300), (61, 130), (200, 512)])
@pytest.mark.parametrize("kind", ["symmetric", "positive", "sparse", "tiny", "huge", "whole"])
def test_the_search_is_its_formula(bits, size, rows, columns, kind):
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(rows, columns, generator=generator)
    weight = {
        "symmetric": weight, "positive": weight.abs().bfloat16(), "sparse": weight * (weight > 1.5),
        "tiny": weight * 1e-6, "huge": weight * 1e6, "whole": weight.round(),
    }[kind]  # fmt: skip
    importance = torch.rand(columns, generator=generator) if kind in ("symmetric", "sparse", "whole") else None
    blocks = quantize_matrix(weight, importance, bits, size)
    integers, scales, zeros = by_formula(weight, importance, bits, size)
    np.testing.assert_array_equal(blocks.scales.ravel(), scales.numpy())
    values = ((integers - zeros) * scales).T.reshape(rows, -1)[:, :columns]
    np.testing.assert_array_equal(dequantize(blocks, columns), values.numpy())


def test_parts_of_a_matrix_are_as_the_whole(monkeypatch):
    """Sums are those of the whole where parts are whole groups of columns."""
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    whole = quantize_matrix(weight, None, 4, 16)
    monkeypatch.setattr(blockwise, "_IN_CACHE", 2**11)
    parts = quantize_matrix(weight, None, 4, 16)
    for name in ("packed", "scales", "zero_points"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
