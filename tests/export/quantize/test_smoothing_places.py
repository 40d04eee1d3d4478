"""Which activations are smoothed, by graphs of a few operators, which ONNX Runtime computes as before.

A product that is smoothed has columns that were multiplied; what cannot be divided leaves it as it was.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from triform.export.graph.linear import DOMAIN
from triform.export.graph.weights import matrix, scaling_of, shape_of
from triform.export.quantize.blocks import lower_to_float
from triform.export.quantize.smoothing import smooth_channels
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph

HEAD = f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "{DOMAIN}" : 1]>'
# Vectors of four channels, a matrix for each product, of three rows or of what is split, and ids.
SIZES = {
    "s": (4,),
    "b": (4,),
    "w": (3, 4),
    "v": (5, 4),
    "up": (4, 4),
    "both": (8, 4),
    "narrow": (4, 3),
    "skip": (2, 3, 4),
}
CONSTANTS = {"one": np.array([1]), "rows": np.array([6, 4]), "tall": np.array([8, 3]), "halves": np.array([4, 4]),
             "ids": np.array([[0, 2, 1], [1, 1, 0]]), "begin": np.array([0]), "last": np.array([2])}  # fmt: skip
X = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)
ENERGY = torch.tensor([1.0, 4.0, 0.01, 900.0])
# To the power of 0.35, with a geometric mean of 1.
FACTORS = (ENERGY.sqrt() ** 0.35) / (ENERGY.sqrt() ** 0.35).log().mean().exp()

# With those of the products whose rows can be divided.
GATED = {"w": ENERGY, "up": torch.ones(4), "both": torch.ones(4), "narrow": torch.ones(3)}


def graph_of(body, *outputs):
    """A graph of x, float32 (2, 3, 4), with the constants above that it reads; `n` is a norm's result."""
    draw = np.random.default_rng(1)
    arrays = {name: draw.normal(size=size).astype(np.float32) for name, size in SIZES.items()} | CONSTANTS
    results = ", ".join(f"float[] {name}" for name in outputs)
    model = onnx.parser.parse_model(
        f"{HEAD} g (float[2,3,4] x) => ({results}) {{ {body.replace('T.', DOMAIN + '.')} }}"
    )
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(arrays[name], name) for name in arrays if name in read)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    for node in graph.graph:
        if node.op_type == "Linear" and node.inputs[0].shape is not None:
            node.outputs[0].shape = ir.Shape([*node.inputs[0].shape[:-1], node.inputs[1].shape[0]])
    return graph


def computed(model, folder):
    """All outputs, once every Linear is a product."""
    lowered = model.clone()
    lower_to_float(lowered)
    write_graph(lowered, folder / "g.onnx")
    return EncoderRunner(folder / "g.onnx", 1).run({"x": X})


def smoothed(model, folder, energies):
    """The names of weights that were scaled; the graph computes what it did."""
    before = computed(model, folder)
    after = smooth_channels(model, energies)
    for name, values in computed(model, folder).items():
        np.testing.assert_allclose(values, before[name], rtol=2e-5, atol=2e-5)
    scaled = {name: scaling_of(value) for name, value in model.graph.initializers.items()}
    columns = {name for name, found in scaled.items() if found and not (found.scaling.columns == 1).all()}
    for name in columns:
        torch.testing.assert_close(scaled[name].scaling.columns, FACTORS)
        torch.testing.assert_close(after[name], energies[name] / FACTORS**2)
    assert {name for name in energies if after[name] is not energies[name]} == columns
    return columns


NORM = "n = LayerNormalization <axis = -1> (x, s, b)"


@pytest.mark.parametrize(
    "norm",
    [
        NORM,
        "n = LayerNormalization <axis = -1> (x, s)",
        "n = SimplifiedLayerNormalization <axis = -1> (x, s)",
        "n = com.microsoft.SkipLayerNormalization (x, skip, s, b)",
        "n = com.microsoft.SkipLayerNormalization (x, skip, s)",
        "n = com.microsoft.SkipSimplifiedLayerNormalization (x, skip, s)",
        # Made of several operators, with the vector on either side.
        "m = Tanh (x) n = Mul (m, s)",
        "m = Tanh (x) n = Mul (s, m)",
    ],
)
def test_a_norm(norm, tmp_path):
    model = graph_of(f"{norm} y = T.Linear (n, w)", "y")
    assert smoothed(model, tmp_path, {"w": ENERGY}) == {"w"}


def test_other_readers_keep_their_vectors(tmp_path):
    """Both norms have the same vectors, and what reads the second was not measured."""
    body = f"{NORM} y = T.Linear (n, w) o = LayerNormalization <axis = -1> (skip, s, b) z = T.Linear (o, v)"
    model = graph_of(body, "y", "z")
    assert smoothed(model, tmp_path, {"w": ENERGY}) == {"w"}


def test_several_products_of_one_activation(tmp_path):
    """The first one's energies decide; each needs some."""
    body = f"{NORM} y = T.Linear (n, w) z = T.Linear (n, v)"
    assert smoothed(graph_of(body, "y", "z"), tmp_path, {"w": ENERGY, "v": ENERGY}) == {"w", "v"}
    assert smoothed(graph_of(body, "y", "z"), tmp_path, {"w": ENERGY}) == set()
    assert smoothed(graph_of(body, "y", "z"), tmp_path, {"v": ENERGY}) == set()
    model = graph_of(body, "y", "z")
    after = smooth_channels(model, {"w": ENERGY, "v": torch.ones(4)})
    torch.testing.assert_close(after["v"], 1 / FACTORS**2)


def test_one_matrix_in_two_products_is_multiplied_once(tmp_path):
    body = f"{NORM} y = T.Linear (n, w) p = Unsqueeze (n, one) z = T.Linear (p, w)"
    model = graph_of(body, "y", "z")
    assert smoothed(model, tmp_path, {"w": ENERGY}) == {"w"}


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ("p = Gather <axis = 1> (n, one)", True),
        ("p = Gather <axis = -2> (n, one)", True),
        ("p = Gather (n, one)", True),
        ("q = Reshape (n, rows) p = Gather (q, one)", True),
        ("p = Reshape (n, rows)", True),
        ("p = Unsqueeze (n, one)", True),
        ("q = Unsqueeze (n, one) p = Squeeze (q, one)", True),
        ("q = Reshape (n, rows) p = Slice (q, one, last)", True),
        # The channels themselves are chosen, moved or computed.
        ("q = Gather <axis = 2> (n, one) p = Concat <axis = -1> (q, q, q, q)", False),
        ("p = Transpose <perm = [1, 0, 2]> (n)", False),
        ("p = Tanh (n)", False),
    ],
)
def test_rows_that_are_chosen_between_a_norm_and_a_product(between, found, tmp_path):
    model = graph_of(f"{NORM} {between} y = T.Linear (p, w)", "y")
    assert smoothed(model, tmp_path, {"w": ENERGY}) == ({"w"} if found else set())


def test_all_channels_are_chosen_in_another_order(tmp_path):
    """As many as there were, but other ones."""
    for axis in (2, -1):
        model = graph_of(f"{NORM} p = Gather <axis = {axis}> (n, order) y = T.Linear (p, w)", "y")
        [gather] = [node for node in model.graph if node.op_type == "Gather"]
        order = ir.val("order", const_value=ir.tensor(np.array([3, 2, 1, 0]), name="order"))
        model.graph.register_initializer(order)
        gather.replace_input_with(1, order)
        gather.outputs[0].shape = ir.Shape([2, 3, 4])
        assert smoothed(model, tmp_path, {"w": ENERGY}) == set()


def test_what_is_given_out_or_read_by_others_stays(tmp_path):
    for body, outputs in (
        (f"{NORM} y = T.Linear (n, w)", ("y", "n")),
        (f"{NORM} y = T.Linear (n, w) z = Add (n, x)", ("y", "z")),
        (f"{NORM} p = Reshape (n, rows) y = T.Linear (p, w) z = Neg (p)", ("y", "z")),
        (f"{NORM} p = Reshape (n, rows) y = T.Linear (p, w)", ("y", "p")),
    ):
        assert smoothed(graph_of(body, *outputs), tmp_path, {"w": ENERGY}) == set()


def test_a_vector_that_is_no_constant_or_not_of_the_channels(tmp_path):
    for body in (
        "t = Tanh (s) n = LayerNormalization <axis = -1> (x, t, b) y = T.Linear (n, w)",
        "t = Tanh (b) n = LayerNormalization <axis = -1> (x, s, t) y = T.Linear (n, w)",
        "m = Tanh (x) n = Mul (m, skip) y = T.Linear (n, w)",
    ):
        assert smoothed(graph_of(body, "y"), tmp_path, {"w": ENERGY}) == set()


def test_a_table_that_is_tied_to_a_product(tmp_path):
    """Rows that are looked up are divided, for all that read them."""
    body = f"{NORM} y = T.Linear (n, w) e = Gather (w, ids) z = Neg (e) u = Tanh (e)"
    assert smoothed(graph_of(body, "y", "z", "u"), tmp_path, {"w": ENERGY}) == {"w"}
    for other, outputs in (
        # What is looked up is not rows, is given out as it is, or the matrix is read as a whole.
        ("e = Gather <axis = 1> (w, one) z = Neg (e)", ("y", "z")),
        ("e = Gather (w, ids)", ("y", "e")),
        ("z = Neg (w)", ("y", "z")),
    ):
        model = graph_of(f"{NORM} y = T.Linear (n, w) {other}", *outputs)
        assert smoothed(model, tmp_path, {"w": ENERGY}) == set()


@pytest.mark.parametrize("gated", ["n = Mul (g, p)", "n = Mul (p, g)"])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_a_product_that_is_gated(gated, bias, tmp_path):
    """The rows of its matrix and its bias are divided."""
    model = graph_of(f"g = Tanh (x) p = T.Linear (x, up{bias}) {gated} y = T.Linear (n, w)", "y")
    assert smoothed(model, tmp_path, GATED) == {"w"}
    [product, *_] = [node for node in model.graph if node.op_type == "Linear"]
    torch.testing.assert_close(scaling_of(product.inputs[1]).scaling.rows, 1 / FACTORS)


def test_a_gated_product_without_energies_stays(tmp_path):
    """Another graph may share its matrix."""
    model = graph_of("g = Tanh (x) p = T.Linear (x, up) n = Mul (g, p) y = T.Linear (n, w)", "y")
    assert smoothed(model, tmp_path, {"w": ENERGY}) == set()
    assert not any(scaling_of(value) for value in model.graph.initializers.values())


@pytest.mark.parametrize(("part", "rows"), [(0, range(4)), (1, range(4, 8))])
@pytest.mark.parametrize("axis", [-1, 2])
def test_part_of_a_product_is_gated(part, rows, axis, tmp_path):
    names = ["p", "q"] if part == 0 else ["q", "p"]
    body = f"h = T.Linear (x, both) {', '.join(names)} = Split <axis = {axis}> (h, halves) t = Tanh (q) n = Mul (t, p)"
    model = graph_of(f"{body} y = T.Linear (n, w)", "y")
    assert smoothed(model, tmp_path, GATED) == {"w"}
    expected = torch.ones(8)
    expected[rows.start : rows.stop] = 1 / FACTORS
    torch.testing.assert_close(scaling_of(model.graph.initializers["both"]).scaling.rows, expected)


def test_the_last_axis_of_an_unknown_shape(tmp_path):
    """It is known by its number alone."""
    for axis, names in ((-1, {"w"}), (2, set())):
        body = f"h = T.Linear (x, both) p, q = Split <axis = {axis}> (h, halves) t = Tanh (q) n = Mul (t, p)"
        model = graph_of(f"{body} y = T.Linear (n, w)", "y")
        model.graph[0].outputs[0].shape = None
        assert smoothed(model, tmp_path, GATED) == names


def test_a_product_that_others_read_is_not_divided(tmp_path):
    for body, outputs in (
        # Its result, its matrix, or the whole of what is split is read elsewhere, too.
        ("g = Tanh (x) p = T.Linear (x, up) n = Mul (g, p) z = Neg (p)", ("y", "z")),
        ("g = Tanh (x) p = T.Linear (x, up) n = Mul (g, p)", ("y", "p")),
        ("g = Tanh (x) p = T.Linear (x, up) z = T.Linear (g, up) n = Mul (g, p)", ("y", "z")),
        (
            "h = T.Linear (x, both) p, q = Split <axis = -1> (h, halves) t = Tanh (q) n = Mul (t, p) z = Neg (h)",
            ("y", "z"),
        ),
        ("g = Tanh (x) p = T.Linear (x, up) n = Mul (p, p)", ("y",)),
        # What is split is no product, or its rows are split: those of the first axis where none is named.
        ("a = T.Linear (x, both) h = Tanh (a) p, q = Split <axis = -1> (h, halves) n = Mul (q, p)", ("y",)),
        ("r = Reshape (x, tall) h = T.Linear (r, narrow) p, q = Split (h, halves) n = Mul (q, p)", ("y",)),
    ):  # fmt: skip
        model = graph_of(f"{body} y = T.Linear (n, w)", *outputs)
        assert smoothed(model, tmp_path, GATED) == set()
        assert not any(scaling_of(value) for value in model.graph.initializers.values())


def test_the_channel_that_is_never_active_counts_as_a_thousandth():
    """Of the mean; and where nothing is active all channels are alike."""
    model = graph_of(f"{NORM} y = T.Linear (n, w)", "y")
    smooth_channels(model, {"w": torch.tensor([4.0, 4.0, 4.0, 0.0])})
    mean = 3.0
    power = torch.tensor([(4 / mean) ** 0.5] * 3 + [1e-3]) ** 0.35
    torch.testing.assert_close(scaling_of(model.graph.initializers["w"]).scaling.columns, power / power.prod() ** 0.25)
    model = graph_of(f"{NORM} y = T.Linear (n, w)", "y")
    smooth_channels(model, {"w": torch.zeros(4)})
    torch.testing.assert_close(scaling_of(model.graph.initializers["w"]).scaling.columns, torch.ones(4))


def test_what_is_divided_stays_a_vector_of_its_own():
    model = graph_of(f"{NORM} y = T.Linear (n, w)", "y")
    before = matrix(model.graph.initializers["s"]).clone()
    smooth_channels(model, {"w": ENERGY})
    norm = model.graph[0]
    assert shape_of(norm.inputs[1]) == shape_of(norm.inputs[2]) == (4,)
    torch.testing.assert_close(matrix(norm.inputs[1]), before / FACTORS)
    assert matrix(model.graph.initializers["s"]).tolist() == before.tolist()
