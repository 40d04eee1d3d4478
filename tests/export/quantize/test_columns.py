"""8-bit activations: the search for grids, the graph that uses them, biases in the operators behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.checkpoints.encoders import bert_folder
from triform.export.graph.fusion_biases import fuse_biases
from triform.export.graph.nodes import nodes
from triform.export.options import ExportOptions
from triform.export.pipeline import plan
from triform.export.quantize.blocks import lower_to_float
from triform.export.quantize.blockwise import dequantize, quantize_matrix
from triform.export.quantize.columns.products import lower_to_int8
from triform.export.quantize.columns.rounding import round_to_nearest, round_with_feedback
from triform.export.quantize.columns.search import RowQuantization, StaticQuantization, choose_quantization
from triform.export.quantize.error_feedback import quantize_with_gptq
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.runtime.errors import InputError


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_strong_channel_moves_into_the_weights():
    """One channel 30 times as strong as the rest: on a common grid the others would have 4 steps left."""
    inputs, weight = numbers(0, 200, 32), numbers(1, 24, 32)
    inputs[:, 5] *= 30
    recipe = choose_quantization(inputs, weight)
    assert isinstance(recipe, StaticQuantization)
    assert recipe.error < 1e-3
    assert recipe.factors[5] < recipe.factors.median() / 5


def test_rows_of_different_size_get_grids_of_their_own():
    inputs, weight = numbers(0, 200, 32), numbers(1, 24, 32)
    inputs[:100] *= 0.01
    inputs[0] *= 1000
    recipe = choose_quantization(inputs[:100], weight)
    assert isinstance(recipe, RowQuantization)
    assert not recipe.one_sided


def test_values_behind_a_gelu_are_mostly_positive():
    inputs, weight = torch.nn.functional.gelu(3 * numbers(0, 200, 32)), numbers(1, 24, 32)
    inputs *= torch.linspace(0.05, 1, 200)[:, None]
    recipe = choose_quantization(inputs, weight)
    assert isinstance(recipe, RowQuantization)
    assert recipe.one_sided
    # No row's grid may end above the smallest value that was seen.
    assert recipe.floor * recipe.zero_point == pytest.approx(-float(inputs.min()))


@pytest.mark.parametrize("width", [48, 200])
def test_feedback_pays_on_inputs_that_were_not_seen(width):
    """Channels that say much the same: an error in one is made good by the next."""
    mixing, weight = numbers(0, 12, width), numbers(1, 24, width)
    seen, other = ((numbers(seed, 300, 12) @ mixing + 0.1 * numbers(seed + 1, 300, width)) for seed in (2, 4))
    nearest, fed = round_to_nearest(weight), round_with_feedback(weight, seen)
    errors = [
        float((other @ (item.integers.float() * item.scales[:, None] - weight).T).square().mean())
        for item in (nearest, fed)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert torch.equal(fed.scales, nearest.scales) and int(fed.integers.abs().max()) <= 127


def test_feedback_of_channels_that_say_nothing_of_each_other_rounds_to_nearest():
    weight = numbers(0, 24, 32)
    alone = torch.eye(32).repeat(3, 1)
    assert torch.equal(round_with_feedback(weight, alone).integers, round_to_nearest(weight).integers)
    nothing = torch.zeros(5, 32)
    assert torch.equal(round_with_feedback(weight, nothing).integers, round_to_nearest(weight).integers)


def test_feedback_stays_within_eight_bits():
    """The first channel is twice the second in every row, so its error of 0.4 would move the largest weight by 0.8."""
    inputs = numbers(0, 50, 1) * torch.tensor([[2.0, 1.0]])
    weight = torch.tensor([[0.4, 127.0], [-0.4, -127.0], [-0.4, 127.0]])
    found = round_with_feedback(weight, inputs)
    assert found.scales.tolist() == [1.0] * 3
    assert found.integers.tolist() == [[0, 127], [0, -127], [0, 126]]


def linear_graph(weight, bias):
    """x (batch, sequence, in_features) to y, one Linear node."""
    x = ir.Value(
        name="x", shape=ir.Shape(["batch", "sequence", weight.shape[1]]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    constants = []
    for name, tensor in (("weight", weight), ("bias", bias)):
        array = ir.tensor(tensor.numpy(), name=name)
        shape = ir.Shape(tuple(tensor.shape))
        constants.append(ir.Value(name=name, shape=shape, type=ir.TensorType(array.dtype), const_value=array))
    node = ir.node("Linear", [x, *constants], domain="triform")
    node.outputs[0].name, node.outputs[0].type = "y", x.type
    node.outputs[0].shape = ir.Shape(["batch", "sequence", weight.shape[0]])
    imports = {"": 21, "com.microsoft": 1}
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=constants, opset_imports=imports, name="linear")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("kind", [StaticQuantization, RowQuantization])
def test_the_graph_computes_what_the_search_promised(kind, tmp_path):
    inputs, weight, bias = numbers(0, 120, 32), numbers(1, 24, 32), numbers(2, 24)
    if kind is RowQuantization:
        inputs *= torch.logspace(-2, 0, 120)[:, None]
    else:
        inputs[:, 5] *= 30
    recipe = choose_quantization(inputs, weight)
    assert isinstance(recipe, kind)
    model = linear_graph(weight, bias)
    kinds = list(lower_to_int8(model, {"weight": inputs}).values())
    assert kinds == ["static" if kind is StaticQuantization else "rows"]
    write_graph(model, tmp_path / "graph.onnx")
    runner = EncoderRunner(tmp_path / "graph.onnx", 1)
    found = runner.run({"x": inputs.reshape(4, 30, 32).numpy()})["y"].reshape(120, 24)
    expected = inputs @ weight.T
    error = torch.from_numpy(found) - bias - expected
    assert float(error.pow(2).sum() / expected.pow(2).sum()) == pytest.approx(recipe.error, rel=0.02)
    # A row's result does not depend on the rows beside it.
    alone = runner.run({"x": inputs[:1, None].numpy()})["y"]
    np.testing.assert_array_equal(alone.ravel(), found[0])


def test_small_heads_stay_in_float(tmp_path):
    model = linear_graph(numbers(1, 5, 32), numbers(2, 5))
    assert lower_to_int8(model, {"weight": numbers(0, 50, 32)}) == {}
    assert [node.op_type for node in model.graph] == ["FusedMatMul", "Add"]


def test_biases_move_without_changing_a_number(tmp_path):
    from triform.export.checkpoint.loading import read_config
    from triform.export.checkpoint.resolve import find_checkpoint
    from triform.export.forms import encoder
    from triform.export.report import Clock

    source = replace(
        find_checkpoint(str(bert_folder(tmp_path / "bert", num_hidden_layers=3))), task="feature-extraction"
    )
    options = ExportOptions(quantize="none")
    checkpoint = encoder.load(source, read_config(source), options)
    graph, _ = encoder.text_graph(encoder.text_encoder(checkpoint, options), Clock(lambda _: None))
    lower_to_float(graph)
    write_graph(graph, tmp_path / "before.onnx")
    fuse_biases(graph)
    write_graph(graph, tmp_path / "after.onnx")
    # Three embeddings are added; a layer adds two residuals, and the biases of the two products before them.
    assert len(nodes(graph.graph, "Add")) == 2 + 3 * 4
    assert all(node.inputs[3] is not None for node in nodes(graph.graph, "MultiHeadAttention"))
    assert len(nodes(graph.graph, "BiasGelu")) == 3
    ids = np.array([[2, 40, 50, 3]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    before, after = (EncoderRunner(tmp_path / f"{name}.onnx", 1).run(feeds) for name in ("before", "after"))
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-5, atol=1e-5)


def test_later_columns_pay_for_the_errors_of_earlier_ones():
    """Inputs that mostly move together leave room to take an error back; those that do not leave none."""
    weight = numbers(1, 24, 64)
    together = numbers(0, 400, 4) @ numbers(3, 4, 64) + 0.3 * numbers(4, 400, 64)
    alone = numbers(0, 4000, 64)
    errors = {}
    for name, inputs in (("together", together), ("alone", alone)):
        plain = dequantize(quantize_matrix(weight, inputs.pow(2).mean(0), 4, 32), 64)
        fed_back = dequantize(quantize_with_gptq(weight, inputs, 4, 32), 64)
        errors[name] = [float((inputs @ (torch.from_numpy(one) - weight).T).pow(2).sum()) for one in (plain, fed_back)]
    assert errors["together"][1] < 0.6 * errors["together"][0]
    assert errors["alone"][1] == pytest.approx(errors["alone"][0], rel=0.15)


def test_blocks_that_are_not_full_are_padded():
    weight, inputs = numbers(1, 24, 40), numbers(0, 300, 40)
    blocks = quantize_with_gptq(weight, inputs, 4, 32)
    assert blocks.packed.shape == (24, 2, 16)
    # Sixteen levels over a normal distribution's reach of about 4 leave an error of some 0.1 a weight.
    assert np.abs(dequantize(blocks, 40) - weight.numpy()).mean() < 0.15


def test_a_block_size_is_refused_where_there_are_no_blocks(tmp_path):
    folder = str(bert_folder(tmp_path / "bert"))
    with pytest.raises(InputError, match="one scale per output column"):
        plan(folder, ExportOptions(block_size=32))
    plan(folder, ExportOptions(block_size=32, quantize="int4"))


def test_rows_of_small_numbers_are_rounded_on_a_grid_that_is_not_too_fine(tmp_path):
    """What GELU gives has rows without a large positive number; their step has a floor."""
    inputs, weight, bias = torch.nn.functional.gelu(numbers(0, 120, 32) * 2), numbers(1, 24, 32), numbers(2, 24)
    inputs[::3] = -0.1 * numbers(3, 40, 32).abs().clamp(max=1.7)
    recipe = choose_quantization(inputs, weight)
    assert isinstance(recipe, RowQuantization)
    assert recipe.one_sided
    model = linear_graph(weight, bias)
    lower_to_int8(model, {"weight": inputs})
    write_graph(model, tmp_path / "graph.onnx")
    found = EncoderRunner(tmp_path / "graph.onnx", 1).run({"x": inputs.reshape(4, 30, 32).numpy()})["y"]
    expected = inputs @ weight.T
    error = torch.from_numpy(found).reshape(120, 24) - bias - expected
    assert float(error.pow(2).sum() / expected.pow(2).sum()) == pytest.approx(recipe.error, rel=0.02)


def test_a_matrix_that_an_embedding_looks_up_too_stays_in_float():
    """Its rows are read in float; an 8-bit copy would stand beside it."""
    model = linear_graph(numbers(1, 24, 32), numbers(2, 24))
    (linear,) = nodes(model.graph, "Linear")
    ids = ir.Value(name="ids", shape=ir.Shape(["sequence"]), type=ir.TensorType(ir.DataType.INT64))
    lookup = ir.node("Gather", [linear.inputs[1], ids])
    lookup.outputs[0].name = "rows"
    model.graph.inputs.append(ids)
    model.graph.append(lookup)
    model.graph.outputs.append(lookup.outputs[0])
    assert lower_to_int8(model, {"weight": numbers(0, 120, 32)}) == {}
    assert not nodes(model.graph, "MatMulIntegerToFloat")
