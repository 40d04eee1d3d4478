"""Unpacks the blocks of a parameter whose numbers are in one or two tensors, in an order of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gguf import GGMLQuantizationType as Format

from triform.export.checkpoint.gguf.blocks import (
    BlockMatrix,
    Factors,
    block_order,
    can_decode,
    decode,
    has_minimums,
    size_of_blocks,
)
from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.placement import Placement


def format_of(placement: Placement) -> Format | None:
    """The format of a parameter's blocks; None if it is not a matrix in blocks, or has no order of whole blocks."""
    tensor, second = placement.tensor, placement.second
    if len(tensor.shape) != 2 or not can_decode(tensor.format):
        return None
    if second is not None and (second.format != tensor.format or len(second.shape) != 2):
        return None
    if placement.columns is not None and block_order(placement.columns, size_of_blocks(tensor.format)) is None:
        return None
    return tensor.format


def blocks_of(placement: Placement) -> BlockMatrix:
    """The blocks of a parameter.

    Args:
        placement: `format_of` returns its format.
    """
    if placement.second is None:
        matrix = decode(placement.stored)
    else:
        matrix = stacked([decode(placement.tensor), decode(placement.second)])
        matrix = matrix if placement.rows is None else matrix.in_rows(placement.rows)
    order = None if placement.columns is None else block_order(placement.columns, matrix.block_size)
    return matrix if order is None else matrix.in_blocks(order)


def expert_blocks_of(placement: Placement, *, alternating: bool) -> BlockMatrix | None:
    """The blocks of a parameter of all experts, whose rows are one below the other.

    Args:
        placement: where its numbers are.
        alternating: whether it has two halves, here two tensors or the halves of each expert of one, whose rows are to
            alternate.

    Returns:
        None if it is not in blocks, if its tensors have different formats, or if these have minimums.
    """
    tensors = [placement.tensor, *([] if placement.second is None else [placement.second])]
    kinds = {tensor.format for tensor in tensors}
    kind = placement.tensor.format
    if len(kinds) > 1 or not can_decode(kind) or has_minimums(kind) or len(tensors) > 1 + alternating:
        return None
    if any(len(tensor.shape) != 3 for tensor in tensors) or placement.rows is not None or placement.columns is not None:
        return None
    matrix = stacked([decode(_below_each_other(tensor)) for tensor in tensors])
    if not alternating:
        return matrix
    halves, experts = len(tensors), placement.tensor.shape[0]
    rows = np.arange(len(matrix.numbers))
    if halves == 1:
        return matrix.in_rows(rows.reshape(experts, 2, -1).swapaxes(1, 2).reshape(-1))
    return matrix.in_rows(rows.reshape(2, experts, -1).transpose(1, 2, 0).reshape(-1))


def _below_each_other(tensor: Tensor) -> Tensor:
    """The matrices of a tensor as one."""
    rows = tensor.shape[0] * tensor.shape[1]
    return Tensor(tensor.name, tensor.format, (rows, tensor.shape[2]), tensor.data.reshape(rows, -1))


def stacked(matrices: Sequence[BlockMatrix]) -> BlockMatrix:
    """The rows of matrices of one format, those of the first first."""
    if len(matrices) == 1:
        return matrices[0]
    minimums = [item.minimums for item in matrices if item.minimums is not None]
    return BlockMatrix(
        numbers=np.concatenate([item.numbers for item in matrices]),
        bits=matrices[0].bits,
        scales=_stacked_factors([item.scales for item in matrices]),
        minimums=_stacked_factors(minimums) if minimums else None,
    )


def _stacked_factors(factors: Sequence[Factors]) -> Factors:
    """The factors of stacked matrices; super-blocks that were cut in one of them are cut in all."""
    cut = max(item.base.shape[1] for item in factors)
    bases = [np.repeat(item.base, cut // item.base.shape[1], axis=1) for item in factors]
    steps = [item.steps for item in factors if item.steps is not None]
    return Factors(np.concatenate(bases), np.concatenate(steps) if steps else None)
