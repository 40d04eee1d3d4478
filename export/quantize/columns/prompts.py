"""Lowers a decoder's graph for long prompts: 8-bit columns of weights, and a scale for each row of activations."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

from triform.export.graph.experts import EXPERTS
from triform.export.graph.linear import LINEAR, parts_of
from triform.export.graph.nodes import nodes, replace
from triform.export.graph.weights import shape_of, stored_matrix
from triform.export.quantize.blocks import FEWEST_COLUMNS, Store, linear_inputs
from triform.export.quantize.columns.products import lower_rows
from triform.export.quantize.columns.search import smoothed_rows
from triform.export.report import Counted, uncounted
from triform.runtime.errors import UnsupportedError, option


def lower_to_columns(
    model: ir.Model, energies: Mapping[str, torch.Tensor], store: Store, counted: Counted = uncounted
) -> dict[str, tuple[str, ...]]:
    """Quantize the products inside of a decoder's layers to 8-bit columns.

    The head, which a prompt needs for one token only, small products, and embeddings stay as they are.

    Args:
        model: changed in place.
        energies: by weight name, the energy of each input channel; see `smoothed_rows`.
        store: for the columns.
        counted: reports how many products are done.

    Returns:
        by weight name, the parts that the weight was joined of; see `parts_of`.

    Raises:
        UnsupportedError: the model has experts, which would stand in memory twice and be read no faster.
    """
    if nodes(model.graph, EXPERTS):
        raise UnsupportedError(f"{option('fast_prompts')} is not for models with experts; leave it out")
    done: dict[str, tuple[str, ...]] = {}
    for node in counted(nodes(model.graph, LINEAR)):
        _, weight, _ = linear_inputs(node)
        if _is_head(model, weight) or shape_of(weight)[0] < FEWEST_COLUMNS:
            continue
        name = str(weight.name)
        recipe = smoothed_rows(stored_matrix(weight), energies.get(name))
        replace(node.outputs[0], lower_rows(model.graph, node, recipe, store))
        model.graph.remove(node, safe=True)
        done[name] = parts_of(weight)
    return done


def _is_head(model: ir.Model, weight: ir.Value) -> bool:
    """Whether a matrix gives the logits, or could: it has a row for each token, as an embedding does."""
    logits = next(value for value in model.graph.outputs if value.name == "logits")
    return logits.shape is not None and shape_of(weight)[0] == logits.shape[-1]
