"""Quantizes an encoder's matrices to a goal: 4 bits in blocks, or 8 bits by column with 8-bit activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.graph.fusion_biases import fuse_biases
from triform.export.options import ExportOptions
from triform.export.quantize.blocks import Scheme, lower_embeddings, lower_product, lower_to_float
from triform.export.quantize.blockwise import Blocks, size_of
from triform.export.quantize.columns.products import lower_products_to_int8, products_by_weight, quantizable
from triform.export.quantize.columns.search import choose_quantization
from triform.export.quantize.mixed.allocation import Choice, Point
from triform.export.quantize.mixed.choices import fitting
from triform.export.quantize.mixed.experts import check_has_no_experts
from triform.export.quantize.mixed.goals import Loss, choose_point, describe_point, frontier_of
from triform.export.quantize.mixed.matrices import (
    Matrix,
    RoundedMatrices,
    damage_with_feedback,
    half_of_squares,
    matrices_of,
    sizes_of,
)
from triform.export.quantize.mixed.moments import Differentiable
from triform.export.quantize.threads import in_threads
from triform.export.report import Clock
from triform.runtime.bundle.export_record import QuantizedEncoderParity
from triform.runtime.bundle.manifest import Quantization

# Bits and block sizes of products, beside 8 bits by column, and of tables.
_PRODUCTS, _TABLES = ((4, 64), (4, 32), (4, 16)), ((4, 32), (4, 16), (8, 32))
# Bytes of a number in float32.
_FLOAT = 4


@dataclass(frozen=True)
class CalibrationInputs:
    """What the products of an encoder read.

    Attributes:
        vectors: by weight name, float32 (rows, in_features).
        rows_worth: see `choose_quantization`.
    """

    vectors: Mapping[str, torch.Tensor]
    rows_worth: float


def lower_encoder_to_goal(
    model: ir.Model,
    inputs: CalibrationInputs,
    subject: Differentiable,
    compare: Callable[[ir.Model], QuantizedEncoderParity],
    options: ExportOptions,
    folder: Path,
    scratch: Path,
    clock: Clock,
) -> Quantization:
    """Quantize an encoder so that it meets the goal of the options.

    Args:
        model: changed in place.
        inputs: of its products.
        subject: what the graph was traced from.
        compare: from a quantized graph to its differences from the float graph, on texts kept aside.
        options: with a goal.
        folder: of the bundle, with all files but the graph and the manifest.
        scratch: an empty folder.
        clock: gets the frontier, and what was measured, as notes.

    Raises:
        InputError: the goal cannot be reached.
        UnsupportedError: the model has experts, or weights that no module of PyTorch multiplies by.
    """
    check_has_no_experts(model, options)
    by_column = quantizable(model, inputs.vectors).keys()
    # Of what PyTorch has no product for, such as some convolutions, all stay in 8 bits by column.
    matrices = matrices_of(model, subject.parameters, subject.sensitivity(scratch), by_column)

    def choices_of(name: str) -> list[Choice]:
        return encoder_choices(matrices[name], name if name in by_column else None, inputs)

    choices = dict(zip(clock.counted(matrices), in_threads(choices_of, matrices), strict=True))
    points = frontier_of([model], sizes_of(matrices), choices, folder, "relative error")
    blocks = RoundedMatrices(matrices)

    def loss(point: Point, kept: Sequence[Point]) -> Loss:
        copy = model.clone()
        store_encoder(copy, blocks.of(point), inputs, options.accuracy_level)
        blocks.keep(point, *kept)
        return _loss(compare(copy))

    point = choose_point(points, options, loss, clock)
    activations = store_encoder(model, blocks.of(point), inputs, options.accuracy_level)
    return replace(describe_point(point, options.accuracy_level), activations=activations)


def _loss(parity: QuantizedEncoderParity) -> Loss:
    if parity.token_errors is not None:
        return Loss(
            parity.token_errors,
            f"{100 * parity.token_errors:.2f} % of the tokens that the float32 graph writes change, on "
            f"{parity.rows} recordings of the exporter's evaluation speech",
        )
    where = f"on {parity.rows} passages of the exporter's evaluation text"
    if parity.cosine_mean is None:
        share = parity.score_mean or 0.0
        return Loss(share, f"scores differ by {100 * share:.2f} % (at most {parity.score_worst:.4f}), {where}")
    return Loss(1 - parity.cosine_mean, f"cosine {parity.cosine_mean:.5f} (worst {parity.cosine_worst:.5f}), {where}")


def encoder_choices(matrix: Matrix, by_column: str | None, inputs: CalibrationInputs) -> list[Choice]:
    """What each way of storing a matrix costs and damages.

    Args:
        matrix: with what was measured of it.
        by_column: the name of its weight; None if it can only be stored in blocks.
        inputs: of all products.
    """
    width, rows = matrix.parts[0].weight.shape[1], sum(len(part.weight) for part in matrix.parts)
    choices = [
        Choice(bits, size, size_of(rows, width, bits, size), _damage(matrix, bits, size))
        for bits, size in fitting(_TABLES if by_column is None else _PRODUCTS, width, looked_up=matrix.looked_up)
    ]
    if by_column is None:
        return choices
    weight = torch.cat([part.weight.float() for part in matrix.parts])
    recipe = choose_quantization(inputs.vectors[by_column], weight, inputs.rows_worth)
    damage = recipe.error * sum(half_of_squares(part.weight.float(), part.moments, part.rows) for part in matrix.parts)
    return [*choices, Choice(8, None, rows * (width + _FLOAT) + width * _FLOAT, damage)]


def _damage(matrix: Matrix, bits: int, block_size: int) -> float:
    return sum(damage_with_feedback(part, bits, block_size) for part in matrix.parts)


def store_encoder(
    model: ir.Model, blocks: Mapping[str, Blocks], inputs: CalibrationInputs, accuracy_level: int
) -> dict[str, str]:
    """Replace each product and each lookup: of a matrix in blocks by those, of another by 8-bit products.

    Args:
        model: the graph of an encoder, changed in place.
        blocks: by weight name.
        inputs: of its products.
        accuracy_level: of MatMulNBits.

    Returns:
        by weight name, how the activations of 8-bit products are quantized.
    """
    tables = {id(model.graph.initializers[name]): item for name, item in blocks.items()}
    by_column = quantizable(model, inputs.vectors)
    activations = lower_products_to_int8(
        model, {name: by_column[name] for name in by_column if name not in blocks}, inputs.vectors, inputs.rows_worth
    )
    for name, linears in products_by_weight(model).items():
        if name in blocks:
            for node in linears:
                lower_product(model.graph, node, blocks[name], accuracy_level)
    lower_to_float(model)
    # All tables are quantized already, so that this scheme is only a form.
    lower_embeddings(model, Scheme(8, 32, accuracy_level), tables)
    fuse_biases(model)
    return activations
