"""Replaces Linear nodes by products of 8-bit weights and 8-bit activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import MICROSOFT, add_initializer, insert, nodes, replace, set_type
from triform.export.graph.weights import matrix, shape_of
from triform.export.quantize.blocks import Store, keep_in_memory, linear_inputs, lower_to_float
from triform.export.quantize.columns.rounding import Int8Weights
from triform.export.quantize.columns.search import (
    ROWS_WORTH,
    RowQuantization,
    StaticQuantization,
    choose_quantization,
)
from triform.export.quantize.threads import in_threads
from triform.export.report import Counted, uncounted

# Products with fewer columns, such as heads and routers, are small, and their errors do much harm.
_FEWEST_COLUMNS = 16


def lower_to_int8(
    model: ir.Model, inputs: Mapping[str, torch.Tensor], rows_worth: float = ROWS_WORTH, counted: Counted = uncounted
) -> dict[str, str]:
    """Quantize every Linear but small ones and those that share their matrix with an embedding.

    Args:
        model: changed in place.
        inputs: by weight name, calibration inputs float32 (rows, in_features).
        rows_worth: see `choose_quantization`.
        counted: reports how many weights are done.

    Returns:
        by weight name, how activations are quantized: "static" or "rows". Products in float32 are left out.
    """
    products = quantizable(model, inputs)
    kinds = lower_products_to_int8(model, products, inputs, rows_worth, counted)
    lower_to_float(model)
    return kinds


def quantizable(model: ir.Model, inputs: Mapping[str, torch.Tensor]) -> dict[str, list[ir.Node]]:
    """By weight name, the Linear nodes that are not small and share no matrix with an embedding.

    A weight has several where layers share it (ALBERT).
    """
    return {
        name: linears
        for name, linears in products_by_weight(model).items()
        if name in inputs
        and not _is_looked_up(weight := linear_inputs(linears[0])[1])
        and shape_of(weight)[0] >= _FEWEST_COLUMNS
    }


def products_by_weight(model: ir.Model) -> dict[str, list[ir.Node]]:
    """By weight name, the Linear nodes."""
    linears: dict[str, list[ir.Node]] = {}
    for node in nodes(model.graph, LINEAR):
        linears.setdefault(str(linear_inputs(node)[1].name), []).append(node)
    return linears


def lower_products_to_int8(
    model: ir.Model,
    products: Mapping[str, Sequence[ir.Node]],
    inputs: Mapping[str, torch.Tensor],
    rows_worth: float,
    counted: Counted = uncounted,
) -> dict[str, str]:
    """Replace Linear nodes by 8-bit products. Those of one weight are quantized alike, so that it is stored once.

    Args:
        model: changed in place.
        products: by weight name, the nodes with that weight.
        inputs: by weight name, calibration inputs of its nodes, float32 (rows, in_features).
        rows_worth: see `choose_quantization`.
        counted: reports how many weights are done.

    Returns:
        by weight name, how activations are quantized: "static" or "rows".
    """

    def choose(name: str) -> StaticQuantization | RowQuantization:
        _, weight, _ = linear_inputs(products[name][0])
        return choose_quantization(inputs[name], matrix(weight).float(), rows_worth)

    recipes = zip(counted(products), in_threads(choose, products), strict=True)
    return {name: _lower_products(model.graph, products[name], recipe) for name, recipe in recipes}


def _lower_products(graph: ir.Graph, linears: Sequence[ir.Node], recipe: StaticQuantization | RowQuantization) -> str:
    for node in linears:
        x, weight, bias = linear_inputs(node)
        if isinstance(recipe, StaticQuantization):
            result = _lower_static(graph, node, x, str(weight.name), bias, recipe)
        else:
            result = lower_rows(graph, node, recipe)
        replace(node.outputs[0], result)
    return "static" if isinstance(recipe, StaticQuantization) else "rows"


def _is_looked_up(weight: ir.Value) -> bool:
    return any(use.node.op_type == "Gather" for use in weight.uses())


def _lower_static(
    graph: ir.Graph, node: ir.Node, x: ir.Value, name: str, bias: ir.Value | None, recipe: StaticQuantization
) -> ir.Value:
    factors = add_initializer(graph, f"{name}.factors", recipe.factors.numpy())
    scaled = _like(insert(graph, node, "Mul", [x, factors]), x)
    integers = _rounded(graph, node, scaled, name, recipe.zero_point)
    return _product(graph, node, integers, name, recipe.weights, recipe.scale, recipe.zero_point, bias)


def lower_rows(graph: ir.Graph, node: ir.Node, recipe: RowQuantization, store: Store = keep_in_memory) -> ir.Value:
    """Insert the operators of a Linear, of which each row of activations gets a scale of its own, before it.

    Args:
        graph: changed in place.
        node: the Linear, which stays.
        recipe: how it is quantized.
        store: for the weights.

    Returns:
        the result, which nothing uses yet.
    """
    x, weight, bias = linear_inputs(node)
    name = str(weight.name)
    if recipe.factors is not None:
        factors = add_initializer(graph, f"{name}.factors", recipe.factors.numpy())
        x = _like(insert(graph, node, "Mul", [x, factors]), x)
    axes = add_initializer(graph, f"{name}.axis", np.array([-1]))
    size = x if recipe.one_sided else _like(insert(graph, node, "Abs", [x]), x)
    peak = insert(graph, node, "ReduceMax", [size, axes], attributes={"keepdims": 1}).outputs[0]
    share = add_initializer(graph, f"{name}.share", np.array([1 / recipe.levels], np.float32))
    floor = add_initializer(graph, f"{name}.floor", np.array([recipe.floor], np.float32))
    step = insert(graph, node, "Max", [insert(graph, node, "Mul", [peak, share]).outputs[0], floor]).outputs[0]
    scaled = _like(insert(graph, node, "Div", [x, step]), x)
    integers = _rounded(graph, node, scaled, name, recipe.zero_point)
    product = _product(graph, node, integers, name, recipe.weights, 1.0, recipe.zero_point, None)
    _store_weights(product, store)
    result = _like(insert(graph, node, "Mul", [product, step]), node.outputs[0])
    return result if bias is None else _like(insert(graph, node, "Add", [result, bias]), node.outputs[0])


def _store_weights(product: ir.Value, store: Store) -> None:
    node = product.producer()
    weights = None if node is None else node.inputs[1]
    if weights is not None:
        store(weights)


def _rounded(graph: ir.Graph, node: ir.Node, scaled: ir.Value, name: str, zero_point: int) -> ir.Value:
    unit_scale = add_initializer(graph, f"{name}.one", np.array(1, np.float32))
    zero = add_initializer(graph, f"{name}.zero", np.array(zero_point, np.uint8))
    integers = insert(graph, node, "QuantizeLinear", [scaled, unit_scale, zero]).outputs[0]
    integers.shape, integers.type = scaled.shape, ir.TensorType(ir.DataType.UINT8)
    return integers


def _product(
    graph: ir.Graph,
    node: ir.Node,
    integers: ir.Value,
    name: str,
    weights: Int8Weights,
    scale: float,
    zero_point: int,
    bias: ir.Value | None,
) -> ir.Value:
    constants = (
        add_initializer(graph, f"{name}.int8", weights.integers.T.contiguous().numpy()),
        add_initializer(graph, f"{name}.scale", np.array(scale, np.float32)),
        add_initializer(graph, f"{name}.scales", weights.scales.numpy()),
        add_initializer(graph, f"{name}.zero_point", np.array(zero_point, np.uint8)),
    )
    inputs = [integers, *constants, None, *(() if bias is None else (bias,))]
    product = insert(graph, node, "MatMulIntegerToFloat", inputs, domain=MICROSOFT)
    return _like(product, node.outputs[0])


def _like(node: ir.Node, value: ir.Value) -> ir.Value:
    set_type(node.outputs[0], value)
    return node.outputs[0]
