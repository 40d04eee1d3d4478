"""Products of an encoder in 4 bits, and the half of them that would lose most in 8."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from triform.export.graph.linear import DOMAIN
from triform.export.quantize.blocks import Scheme
from triform.export.quantize.columns.search import ROWS_WORTH
from triform.export.quantize.int4 import lower_to_int4
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph

HEAD = f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "{DOMAIN}" : 1]>'
INPUTS = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))


def on_the_grid(seed, rows=24):
    """Whole numbers from -7 to 7 times a power of two: 4 bits have them all."""
    whole = torch.randint(-7, 8, (rows, 32), generator=torch.Generator().manual_seed(seed)).float()
    whole[:, ::16] = 7.0
    whole[:, 1::16] = -7.0
    return whole / 64


def off_the_grid(seed):
    """Two numbers of each block leave no steps for the others."""
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(seed)) / 50
    weight[:, ::16], weight[:, 1::16] = 7.3 / 4, -7.1 / 4
    return weight


def lowered(folder, weights, readers=None, inputs=None):
    """The count, the kinds, the operators by result, and the results and what PyTorch gives for them."""
    readers = readers or list(weights)
    body = " ".join(f"y{place} = {DOMAIN}.Linear (x, {name})" for place, name in enumerate(readers))
    gives = ", ".join(f"float[B,{len(weights[name])}] y{place}" for place, name in enumerate(readers))
    model = onnx.parser.parse_model(f"{HEAD} g (float[B,32] x) => ({gives}) {{ {body} }}")
    model.graph.initializer.extend(numpy_helper.from_array(value.numpy(), name) for name, value in weights.items())
    graph = ir.from_proto(model)
    count, kinds = lower_to_int4(
        graph, Scheme(4, 16, 1), dict.fromkeys(weights, INPUTS) if inputs is None else inputs, ROWS_WORTH
    )
    write_graph(graph, folder / "g.onnx")
    found = EncoderRunner(folder / "g.onnx", 1).run({"x": INPUTS.numpy()})
    expected = [(INPUTS @ weights[name].T).numpy() for name in readers]
    operators = [node.op_type for node in graph.graph]
    return count, kinds, operators, [found[f"y{place}"] for place in range(len(readers))], expected


@pytest.mark.parametrize(
    ("good", "bad", "in_8_bits"), [(1, 1, 1), (2, 2, 2), (2, 1, 2), (3, 1, 2), (1, 0, 0), (4, 1, 2)]
)
def test_half_of_the_products_have_8_bits_and_those_that_lose_most_are_among_them(good, bad, in_8_bits, tmp_path):
    """Rounded as Python rounds: of 3 products 2, of 5 products 2, of one none."""
    weights = {f"good{seed}": on_the_grid(seed) for seed in range(good)}
    weights |= {f"bad{seed}": off_the_grid(9 + seed) for seed in range(bad)}
    count, kinds, operators, found, expected = lowered(tmp_path, weights)
    assert len(kinds) == in_8_bits and count == good + bad - in_8_bits == operators.count("MatMulNBits")
    assert set(kinds) >= {f"bad{seed}" for seed in range(min(bad, in_8_bits))} and set(kinds) <= set(weights)
    for values, exact in zip(found, expected, strict=True):
        assert np.abs(values - exact).max() < 0.02 * np.abs(exact).max()


def test_a_matrix_of_two_products_is_one(tmp_path):
    weights = {"a": on_the_grid(1), "b": off_the_grid(2)}
    count, kinds, operators, found, expected = lowered(tmp_path, weights, ["a", "b", "a"])
    assert (count, list(kinds), operators.count("MatMulNBits")) == (1, ["b"], 2)
    for values, exact in zip(found, expected, strict=True):
        assert np.abs(values - exact).max() < 0.02 * np.abs(exact).max()


def test_what_is_small_or_was_not_measured_stays(tmp_path):
    weights = {"a": on_the_grid(1), "small": on_the_grid(2, rows=15), "unknown": on_the_grid(3)}
    inputs = {"a": INPUTS, "small": INPUTS}
    count, kinds, operators, found, expected = lowered(tmp_path, weights, inputs=inputs)
    assert (count, kinds, operators.count("MatMulNBits"), operators.count("FusedMatMul")) == (1, {}, 1, 2)
    for values, exact in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(values, exact, atol=1e-5)
