"""Quantizes a decoder's matrices to a goal, each with its own bits and block size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import nodes
from triform.export.options import ExportOptions
from triform.export.quantize.blocks import Scheme, linear_inputs, lower_embeddings, lower_product, lower_to_float
from triform.export.quantize.blockwise import Blocks
from triform.export.quantize.mixed.allocation import Choice, Point
from triform.export.quantize.mixed.choices import choices_of
from triform.export.quantize.mixed.experts import (
    Experts,
    choices_of_experts,
    energies_of_experts,
    experts_of,
    lower_experts_to_choices,
    routers_of,
)
from triform.export.quantize.mixed.goals import Loss, choose_point, describe_point, expected_growth, frontier_of
from triform.export.quantize.mixed.matrices import (
    Matrix,
    RoundedMatrices,
    energies_of_products,
    matrices_of,
    sizes_of,
)
from triform.export.quantize.mixed.moments import Differentiable
from triform.export.quantize.smoothing import smooth_channels
from triform.export.quantize.threads import in_threads
from triform.export.report import Clock
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.bundle.manifest import Quantization


def lower_decoder_to_goal(
    model: ir.Model,
    subject: Differentiable,
    compare: Callable[[ir.Model], QuantizedParity],
    options: ExportOptions,
    folder: Path,
    scratch: Path,
    clock: Clock,
) -> Quantization:
    """Quantize a decoder so that it meets the goal of the options.

    Args:
        model: changed in place.
        subject: what the graph was traced from.
        compare: from a quantized graph to its differences from the float graph, on text kept aside.
        options: with a goal.
        folder: of the bundle, with all files but the graph and the manifest.
        scratch: an empty folder.
        clock: gets the frontier, and what was measured, as notes.

    Raises:
        InputError: the goal cannot be reached.
        UnsupportedError: the model has weights that no module of PyTorch multiplies by.
    """
    sensitivity, parameters = subject.sensitivity(scratch), subject.parameters
    of_experts = energies_of_experts(model, parameters, sensitivity)
    smoothed = smooth_channels(model, energies_of_products(model, parameters, sensitivity) | of_experts)
    shares = {name: smoothed[name] / energies.clamp(min=1e-30) for name, energies in of_experts.items()}
    experts = experts_of(model, parameters, sensitivity, shares)
    matrices = matrices_of(model, parameters, sensitivity, routers_of(model, parameters, sensitivity))
    choices = _choices(matrices, experts, clock)
    sizes = sizes_of(matrices) | {name: size for item in experts.values() for name, size in item.sizes.items()}
    points = frontier_of([model], sizes, choices, folder, "KL before error feedback")
    rounded = RoundedMatrices(matrices)

    def store(graph: ir.Model, point: Point) -> None:
        lower_experts_to_choices(graph, experts, point.choices, options.accuracy_level)
        store_decoder(graph, rounded.of(point), options.accuracy_level)

    def loss(point: Point, kept: Sequence[Point]) -> Loss:
        copy = model.clone()
        store(copy, point)
        rounded.keep(point, *kept)
        return decoder_loss(compare(copy))

    point = choose_point(points, options, loss, clock)
    store(model, point)
    return describe_point(point, options.accuracy_level)


def _choices(matrices: Mapping[str, Matrix], experts: Mapping[str, Experts], clock: Clock) -> dict[str, list[Choice]]:
    """What each way of storing a matrix, or the experts of a layer, costs and damages."""
    results = in_threads(
        lambda item: choices_of(item.parts, looked_up=item.looked_up, timed=item.multiplied), matrices.values()
    )
    choices = dict(zip(clock.counted(matrices), results, strict=True))
    return choices | {name: choices_of_experts(item) for name, item in experts.items()}


def decoder_loss(parity: QuantizedParity) -> Loss:
    """How much perplexity grows.

    On a thousand tokens that are given, the growth has an error of about the root of 2 KL / 1,000, which is half of one
    percent. The growth to expect on text of the model's own, e to the divergence less 1, is of all tokens that could
    follow and has a far smaller one. That is limited, and what was measured on the text less its standard error.
    """
    # Of graphs that are all but equal it may be just below 0.
    kl, growth = np.maximum(parity.mean_kl, 0.0), parity.perplexity_quantized / parity.perplexity_original - 1
    expected, error = expected_growth(kl), np.sqrt(2 * kl / parity.tokens)
    return Loss(
        # Where one is no number, so is the result.
        float(np.maximum(expected, growth - error)),
        f"perplexity {100 * expected:+.2f} % expected (KL {kl:.4f}), {100 * growth:+.2f} % ± {100 * error:.2f} "
        f"measured ({parity.perplexity_original:.2f} in float32), on {parity.tokens} tokens of the exporter's "
        "evaluation text",
    )


def store_decoder(model: ir.Model, blocks: Mapping[str, Blocks], accuracy_level: int) -> None:
    """Replace each product and each lookup of a matrix by those of its blocks; what has none stays in float32.

    Args:
        model: the graph of a decoder, changed in place.
        blocks: by weight name.
        accuracy_level: of MatMulNBits.
    """
    tables = {id(model.graph.initializers[name]): item for name, item in blocks.items()}
    for node in nodes(model.graph, LINEAR):
        weight = linear_inputs(node)[1]
        if str(weight.name) in blocks:
            lower_product(model.graph, node, blocks[str(weight.name)], accuracy_level)
    lower_to_float(model)
    # All tables are quantized already, so that this scheme is only a form.
    lower_embeddings(model, Scheme(8, 32, accuracy_level), tables)
