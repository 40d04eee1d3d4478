"""Quantizes a decoder's matrices within a target, each with its own bits and block size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from triform.export.graph.experts import EXPERTS
from triform.export.graph.linear import LINEAR, parts_of
from triform.export.graph.nodes import nodes
from triform.export.graph.weights import matrix, shape_of
from triform.export.quantize.blocks import (
    FEWEST_COLUMNS,
    Scheme,
    Store,
    is_token_table,
    linear_inputs,
    lower_embeddings,
    lower_product,
    lower_to_float,
)
from triform.export.quantize.blockwise import Blocks
from triform.export.quantize.error_feedback import quantize_with_moments
from triform.export.quantize.mixed.allocation import Choice, Point, frontier
from triform.export.quantize.mixed.choices import Part, choices_of
from triform.export.quantize.mixed.moments import Moments, Sensitivity, measure, product_modules
from triform.runtime.errors import UnsupportedError, option

# The traced module holds the model under this name.
_PREFIX = "model."
# On SmolLM2-135M with 4 bits in blocks of 32, damping by .03, .1, .3 and 1 gave a divergence of .064, .058, .056 and
# .068 on other text than was calibrated on.
_DAMPING = 0.3


@dataclass(frozen=True)
class Lowered:
    """What was done.

    Attributes:
        point: of the frontier, the one that was chosen.
        formats: how many matrices have which bits and block size.
        weights: in all matrices.
    """

    point: Point
    formats: dict[str, int]
    weights: int


def lower_mixed(
    model: ir.Model,
    network: PreTrainedModel,
    ids: list[int],
    window: int,
    accuracy_level: int,
    scratch: Path,
    choose: Callable[[list[Point], int, int], Point],
    store: Store,
) -> Lowered:
    """Quantize every product and token embedding.

    Args:
        model: changed in place.
        network: what the graph was traced from.
        ids: text to calibrate on.
        window: tokens that are read at once.
        accuracy_level: of MatMulNBits.
        scratch: an empty folder.
        choose: from the frontier, the number of weights, and the bytes of everything else, to one of the points.
        store: for the blocks.

    Raises:
        UnsupportedError: the model has experts, or weights that no module of PyTorch multiplies by.
    """
    if nodes(model.graph, EXPERTS):
        raise UnsupportedError(
            f"{option('target_size')} and {option('target_bits')} are not for mixtures of experts; export with "
            f"{option('quantize')} int4 or int8"
        )
    weights = _weights(model)
    sensitivity = measure(network, product_modules(network), ids, window, scratch)
    known = dict(network.named_parameters(remove_duplicate=False))
    tables = {name for name, value in weights.items() if _is_table(model, value)}
    # The parts of one matrix at a time: in float32 all of them take twice the memory of the checkpoint.
    choices = {
        name: choices_of(_parts(value, known, sensitivity), looked_up=name in tables) for name, value in weights.items()
    }
    points = frontier(choices)
    count = sum(math.prod(shape_of(value)) for value in weights.values())
    others = sum(
        value.const_value.nbytes
        for name, value in model.graph.initializers.items()
        if name not in weights and value.const_value is not None
    )
    point = choose(points, count, others)
    readers: dict[str, list[ir.Node]] = {name: [] for name in weights}
    for node in nodes(model.graph, LINEAR):
        readers.get(str(linear_inputs(node)[1].name), []).append(node)
    done: dict[str, Blocks] = {}
    for name, linears in readers.items():
        blocks = _quantized(_parts(weights[name], known, sensitivity), point.choices[name])
        if name in tables:
            done[name] = blocks
        for node in linears:
            lower_product(model.graph, node, blocks, accuracy_level, store)
    lower_to_float(model)
    # All tables are quantized already, so that this scheme is only a form.
    shared = {id(weights[name]): blocks for name, blocks in done.items()}
    lower_embeddings(model, Scheme(8, 32, accuracy_level), shared, store)
    kinds = Counter(str(choice) for choice in point.choices.values())
    return Lowered(point, dict(sorted(kinds.items())), count)


def _weights(model: ir.Model) -> dict[str, ir.Value]:
    """The matrices to quantize, by name: of products that are not small, and of token embeddings."""
    values = [linear_inputs(node)[1] for node in nodes(model.graph, LINEAR)]
    found = {str(value.name): value for value in values if shape_of(value)[0] >= FEWEST_COLUMNS}
    for node in nodes(model.graph, "Gather"):
        table = node.inputs[0]
        if table is not None and _is_table(model, table):
            found[str(table.name)] = table
    return found


def _is_table(model: ir.Model, value: ir.Value) -> bool:
    if not value.is_initializer():
        return False
    gathers = [use.node for use in value.uses() if use.node.op_type == "Gather" and use.node.inputs[0] is value]
    return any(ids is not None and is_token_table(model, value, ids) for ids in (node.inputs[1] for node in gathers))


def _parts(value: ir.Value, known: dict[str, torch.nn.Parameter], sensitivity: Sensitivity) -> list[Part]:
    """The parts of a stored matrix, with what was measured of each."""
    rows, parts = matrix(value).float(), []
    names = [name.removeprefix(_PREFIX).removesuffix(".transposed") for name in parts_of(value)]
    parameters = [known.get(name) for name in names]
    start, looked_up = 0, any(use.node.op_type == "Gather" for use in value.uses())
    for name, parameter in zip(names, parameters, strict=True):
        moments = None if parameter is None else sensitivity.products.get(id(parameter))
        if moments is None and looked_up and sensitivity.embedding is not None:
            moments = _of_table(rows, sensitivity.embedding)
        if moments is None:
            raise UnsupportedError(
                f"the damage of rounding {name} cannot be measured; export with {option('quantize')} int4 or int8"
            )
        inputs = moments.inputs
        if looked_up and sensitivity.embedding is not None:
            inputs = inputs + torch.diag(sensitivity.embedding)
        count = len(moments.outputs)
        parts.append(
            Part(rows[start : start + count], inputs, moments.outputs / moments.outputs.sum().clamp(min=1e-30))
        )
        start += count
    if start != len(rows):
        raise UnsupportedError(
            f"the damage of rounding {names[0]} cannot be measured; export with {option('quantize')} int4 or int8"
        )
    return parts


def _of_table(rows: torch.Tensor, embedding: torch.Tensor) -> Moments | None:
    """Of a matrix that is only looked up: nothing besides what `_parts` adds for that."""
    if rows.shape[1] != len(embedding):
        return None
    return Moments(torch.zeros(len(embedding), len(embedding)), torch.ones(len(rows)))


def _quantized(parts: list[Part], choice: Choice) -> Blocks:
    pieces = [
        quantize_with_moments(part.weight, part.moments, choice.bits, choice.block_size, _DAMPING) for part in parts
    ]
    return Blocks(
        np.concatenate([piece.packed for piece in pieces]),
        np.concatenate([piece.scales for piece in pieces]),
        np.concatenate([piece.zero_points for piece in pieces]),
        choice.bits,
        choice.block_size,
    )
