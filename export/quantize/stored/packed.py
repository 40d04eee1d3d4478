"""Keeps the integers of a checkpoint that another tool quantized, so that nothing is rounded twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import torch

from triform.export.checkpoint.files.packed.packing import Grid, UnpackedWeight
from triform.export.graph.linear import parts_of
from triform.export.graph.weights import MODEL_PREFIX
from triform.export.quantize.blockwise import SMALLEST_BLOCK, Blocks, join_blocks, stack_blocks


class KeptBlocks:
    """Gives the blocks of the matrices that have them.

    Attributes:
        formats: how many matrices were given, by their format in words.
    """

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        """Take a checkpoint's tensors by name, see `open_weights`."""
        self._tensors = tensors
        self.formats: Counter[str] = Counter()

    def of(self, weight: ir.Value) -> Blocks | None:
        """The blocks of a matrix, (out_features, in_features); None if no operator computes with its integers.

        Raises:
            ExportError: the tensors of the matrix do not fit each other.
        """
        parts = [self._blocks(str(name)) for name in parts_of(weight)]
        blocks = [part for part in parts if part is not None]
        if len(blocks) < len(parts) or len({(part.bits, part.block_size) for part in blocks}) != 1:
            return None
        first = blocks[0]
        self.formats[f"int{first.bits} in blocks of {first.block_size}"] += 1
        return stack_blocks(blocks)

    def _blocks(self, name: str) -> Blocks | None:
        tensor = self._tensors.get(name.removeprefix(MODEL_PREFIX))
        grid = tensor.grid() if isinstance(tensor, UnpackedWeight) else None
        return None if grid is None else _blocks_of(grid)


def _blocks_of(grid: Grid) -> Blocks | None:
    rows, width = grid.numbers.shape
    groups = grid.scales.shape[1]
    size = width // groups
    if grid.group is not None or size * groups != width or size < SMALLEST_BLOCK or size & (size - 1):
        return None
    return join_blocks(
        grid.numbers.to(torch.uint8).view(rows, groups, size).contiguous(),
        grid.scales.float()[..., None].contiguous(),
        grid.zeros.to(torch.uint8)[..., None].contiguous(),
        4 if grid.bits <= 4 else 8,
        size,
    )
