"""Which matrices of a graph are stored in blocks, and what is known of their parts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from triform.export.graph.linear import find_linears
from triform.export.quantize.blockwise import dequantize
from triform.export.quantize.mixed.allocation import Choice, Point
from triform.export.quantize.mixed.choices import Part
from triform.export.quantize.mixed.matrices import RoundedMatrices, matrices_of, rounded
from triform.export.quantize.mixed.moments import Moments, Sensitivity
from triform.runtime.errors import UnsupportedError

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
WIDTH = 4


def table(rows, start=1.0):
    return torch.arange(start, start + rows * WIDTH).reshape(rows, WIDTH)


def model_of(*, head=16, tied=False, table_by="input_ids", other=None):
    """A table of 20 rows that is looked up, and a product with a matrix of so many rows, or with the table."""
    ids, positions = ir.val("input_ids", INT64, ["b", "s"]), ir.val("positions", INT64, ["b", "s"])
    weights = {"table": table(20), "head": table(head, 100.0)}
    values = {
        name: ir.val(
            f"model.{name}", FLOAT, list(weight.shape), const_value=ir.tensor(weight.numpy(), name=f"model.{name}")
        )
        for name, weight in weights.items()
    }
    source = ids if table_by == "input_ids" else ir.node("Neg", [ids]).outputs[0]
    looked = ir.node("Gather", [values["table"], source], {"axis": 0})
    looked.outputs[0].shape, looked.outputs[0].type = ir.Shape(["b", "s", WIDTH]), ir.TensorType(FLOAT)
    nodes = [looked] if source is ids else [source.producer(), looked]
    turned = ir.node("Transpose", [values["table" if tied else "head"]], {"perm": [1, 0]})
    product = ir.node("MatMul", [looked.outputs[0], turned.outputs[0]])
    product.outputs[0].shape, product.outputs[0].type = ir.Shape(["b", "s", 20 if tied else head]), ir.TensorType(FLOAT)
    product.outputs[0].name = "logits"
    nodes += [turned, product]
    used = [value for value in values.values() if value.uses()]
    graph = ir.Graph([ids, positions], [product.outputs[0]], nodes=nodes, initializers=used, opset_imports={"": 17})
    model = ir.Model(graph, ir_version=10)
    find_linears(model)
    return model


def measured(parameters, embedding=True, **outputs):
    """Sensitivity in which the inputs of product n are n times the identity."""
    products = {
        id(parameter): Moments(
            (number + 1) * torch.eye(WIDTH), torch.arange(1.0, 1 + outputs.get(name, len(parameter)))
        )
        for number, (name, parameter) in enumerate(parameters.items())
        if outputs.get(name, 1)
    }
    return Sensitivity(products, torch.arange(10.0, 10.0 + WIDTH) if embedding else None)


def parameters_of(*names, rows=16):
    return {name: torch.nn.Parameter(table(20) if name == "table" else table(rows, 100.0)) for name in names}


def test_a_product_and_a_table():
    """A table that is only looked up has nothing but the embedding's gradients; all its rows count alike."""
    parameters = parameters_of("head")
    found = matrices_of(model_of(), parameters, measured(parameters))
    assert {name: matrix.looked_up for name, matrix in found.items()} == {"model.head": False, "model.table": True}
    (head,), (looked,) = (found[name].parts for name in ("model.head", "model.table"))
    torch.testing.assert_close(head.weight, table(16, 100.0))
    torch.testing.assert_close(head.moments, torch.eye(WIDTH))
    torch.testing.assert_close(head.rows, torch.arange(1.0, 17) / 136)
    torch.testing.assert_close(looked.moments, torch.diag(torch.arange(10.0, 14.0)))
    torch.testing.assert_close(looked.rows, torch.full((20,), 0.05))


def test_a_table_that_is_multiplied_by_has_both():
    parameters = parameters_of("table")
    found = matrices_of(model_of(tied=True), parameters, measured(parameters))
    ((part,), looked_up) = found["model.table"].parts, found["model.table"].looked_up
    assert list(found) == ["model.table"] and looked_up
    torch.testing.assert_close(part.moments, torch.eye(WIDTH) + torch.diag(torch.arange(10.0, 14.0)))
    torch.testing.assert_close(part.rows, torch.arange(1.0, 21) / 210)


@pytest.mark.parametrize(("rows", "stored"), [(15, False), (16, True)])
def test_small_products_stay(rows, stored):
    parameters = parameters_of("head", rows=rows)
    found = matrices_of(model_of(head=rows), parameters, measured(parameters))
    assert ("model.head" in found) is stored


def test_a_small_table_that_tokens_do_not_index_stays():
    parameters = parameters_of("head")
    assert list(matrices_of(model_of(table_by="others"), parameters, measured(parameters))) == ["model.head"]


@pytest.mark.parametrize("missing", ["parameter", "moments", "rows", "embedding", "width"])
def test_what_was_not_measured_is_named(missing):
    parameters = parameters_of("head")
    sensitivity = measured(parameters, embedding=missing != "embedding", **({"head": 15} if missing == "rows" else {}))
    if missing == "moments":
        sensitivity.products.clear()
    if missing == "width":
        sensitivity.embedding = torch.ones(WIDTH + 1)
    known = {} if missing == "parameter" else parameters
    name = "table" if missing in ("embedding", "width") else "head"
    with pytest.raises(UnsupportedError) as caught:
        matrices_of(model_of(), known, sensitivity)
    said = f"the damage of rounding {name} cannot be measured; export with `quantize` int4 or int8"
    assert str(caught.value) == said
    assert name not in matrices_of(
        model_of(), known, sensitivity, others=["head", "table", "model.head", "model.table"]
    )


def test_no_gradient_at_any_output_is_no_damage():
    parameters = parameters_of("head")
    sensitivity = measured(parameters)
    sensitivity.products[id(parameters["head"])].outputs.zero_()
    (part,) = matrices_of(model_of(), parameters, sensitivity)["model.head"].parts
    assert not part.rows.any()


def part_of(rows, width=32):
    torch.manual_seed(rows)
    return Part(torch.randn(rows, width), torch.eye(width), torch.ones(rows) / rows)


def test_parts_are_rounded_one_below_the_other():
    parts = [part_of(3), part_of(5)]
    blocks = rounded(parts, Choice(8, 32, 1, 0.0))
    whole = torch.cat([part.weight for part in parts]).numpy()
    found = dequantize(blocks, 32)
    assert (found.shape, blocks.bits, blocks.block_size) == ((8, 32), 8, 32)
    # Half a step, of 255 between a row's ends.
    steps = (whole.max(1) - whole.min(1)).clip(min=0) / 255
    assert (np.abs(found - whole) <= 0.51 * steps[:, None] + 2e-3).all()
    with pytest.raises(ValueError, match="8 bit by column has no blocks"):
        rounded(parts, Choice(8, None, 1, 0.0))


def test_each_way_is_rounded_once_as_long_as_it_is_kept():
    """What is stored by column has no blocks."""
    model = type("Matrix", (), {"parts": [part_of(2)], "looked_up": False})
    matrices = RoundedMatrices({"a": model, "b": model, "c": model})
    fine, coarse = Choice(8, 32, 2, 0.0), Choice(4, 32, 1, 0.0)
    by_column = Choice(8, None, 1, 0.0)
    first = matrices.of(Point(0, 0.0, {"a": fine, "b": coarse, "c": by_column}))
    assert list(first) == ["a", "b"] and (first["a"].bits, first["b"].bits) == (8, 4)
    point = Point(0, 0.0, {"a": fine, "b": fine})
    second = matrices.of(point)
    assert second["a"] is first["a"] and second["b"].bits == 8
    matrices.keep(point)
    third = matrices.of(Point(0, 0.0, {"a": fine, "b": coarse}))
    assert third["a"] is first["a"] and third["b"] is not first["b"]
    matrices.keep()
    assert matrices.of(point)["a"] is not first["a"]
