"""A decoder that is run in segments computes what PyTorch does, from weights that stay as they are stored."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch

from tests.checkpoints.decoder_families import CONTEXT, FAMILIES, VOCAB, build
from tests.checkpoints.recurrent_families import RECURRENT_FAMILIES
from triform.export.graph.cache import cache_info
from triform.export.graph.fusion import fuse
from triform.export.graph.nodes import MICROSOFT, add_initializer
from triform.export.graph.tracing import trace
from triform.export.graph.weights import StackedTensor
from triform.export.quantize.blocks import lower_to_float
from triform.export.verify import segmented, segments
from triform.export.verify.decoder import check_parity, parity_feedings, parity_of, reference_logits
from triform.models.decoder.graph import decoder_spec
from triform.models.stored_weights import StoredWeight

IDS = torch.randint(0, VOCAB, (90,), generator=torch.Generator().manual_seed(1)).tolist()


def keep_in_16_bits(model, dtype):
    """Round the matrices of a model to `dtype`, and leave them in it; returns the logits of the rounded numbers."""
    kept = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if weight.dim() == 2:
                kept.setdefault(id(weight), weight.detach().to(dtype))
                weight.data.copy_(kept[id(weight)])
    expected = reference_logits(model, IDS)
    parameters = {}
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in kept:
                stored = torch.nn.Parameter(StoredWeight(kept[id(weight)]), requires_grad=False)
                setattr(module, name, parameters.setdefault(id(weight), stored))
    return expected


def segmented_decoder(model, folder):
    spec, prepared = decoder_spec(model, CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    lower_to_float(graph)
    return segmented.SegmentedDecoder(graph, folder, cache_info(spec), 2), graph


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "mixtral", "bloom", "tied embeddings", "trocr", "qwen3_5_text", "lfm2"]
)
def test_segments_compute_what_pytorch_does(family, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_LARGE", 0)
    # Less than most matrices have, so that products are cut, too.
    monkeypatch.setattr(segmented, "_LIMIT", 25_000)
    monkeypatch.setattr(segmented, "_ROWS", 100)
    model = build(*(FAMILIES | RECURRENT_FAMILIES)[family])
    expected = keep_in_16_bits(model, torch.bfloat16)
    decoder, _ = segmented_decoder(model, tmp_path)
    assert len(decoder._segments) > 8
    check_parity(parity_of(decoder.run(parity_feedings(IDS)), expected, IDS))


def test_a_state_and_the_next_one_are_in_one_segment(monkeypatch):
    """A product whose weights would begin a segment stands between what reads a state and what makes the next."""
    monkeypatch.setattr(segments, "_LARGE", 0)
    graph = ir.Graph(
        [floats("x", 2, 6), floats("past_states.0", 2, 6)],
        [],
        nodes=[],
        opset_imports={"": 21, MICROSOFT: 1},
        name="all",
    )
    x, past = graph.inputs
    weights = [add_initializer(graph, f"w{index}", StackedTensor((torch.ones(6, 6),), None)) for index in range(3)]

    def node(kind, *values, domain=""):
        made = ir.node(kind, values, domain=domain, attributes={"transB": 1} if domain else {})
        made.outputs[0].name, made.outputs[0].type, made.outputs[0].shape = f"of{len(graph)}", x.type, x.shape
        graph.append(made)
        return made.outputs[0]

    before = node("FusedMatMul", x, weights[0], domain=MICROSOFT)
    mixed = node("Add", past, before)
    between = node("FusedMatMul", mixed, weights[1], domain=MICROSOFT)
    following = node("Neg", mixed)
    logits = node("FusedMatMul", between, weights[2], domain=MICROSOFT)
    logits.name, following.name = "logits", "present_states.0"
    graph.outputs.extend([logits, following])
    cut = segments.cut_into_segments(ir.Model(graph, ir_version=10), 6 * 6 * 4, {"past_states.0": "present_states.0"})
    assert [list(part.weights) for part in cut.segments] == [["w0", "w1"], ["w2"]]
    first = cut.segments[0].model.graph
    assert "past_states.0" in cut.segments[0].inputs and following in first.outputs


def floats(name, *sizes):
    return ir.Value(name=name, shape=ir.Shape(sizes), type=ir.TensorType(ir.DataType.FLOAT))


def test_a_wrong_weight_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_LARGE", 0)
    model = build(*FAMILIES["llama"])
    expected = keep_in_16_bits(model, torch.float16)
    weight = model.model.layers[1].mlp.down_proj.weight.stored
    weight.mul_(1.5)
    decoder, _ = segmented_decoder(model, tmp_path)
    parity = parity_of(decoder.run(parity_feedings(IDS)), expected, IDS)
    assert min(parity.prefill, parity.chunked, parity.step, parity.ragged) > 10 * parity.tolerance


def test_large_weights_are_neither_copied_nor_written(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_LARGE", 0)
    model = build(*FAMILIES["llama"])
    keep_in_16_bits(model, torch.bfloat16)
    decoder, _ = segmented_decoder(model, tmp_path)
    held = {piece.data_ptr() for part in decoder._segments for pieces in part.weights.values() for piece in pieces}
    products = [weight for name, weight in model.named_parameters() if name.endswith("proj.weight")]
    assert all(isinstance(weight, StoredWeight) for weight in products)
    assert {weight.stored.data_ptr() for weight in products} <= held
    written = sum(path.stat().st_size for path in tmp_path.glob("*.data"))
    assert written < min(weight.numel() for weight in products) + 2 * CONTEXT * 4096


def test_lookups_and_products_share_a_tied_matrix(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "_LARGE", 0)
    model = build(*FAMILIES["tied embeddings"])
    keep_in_16_bits(model, torch.bfloat16)
    decoder, _ = segmented_decoder(model, tmp_path)
    (table,) = decoder._lookups.values()
    held = {piece.data_ptr() for part in decoder._segments for pieces in part.weights.values() for piece in pieces}
    assert table.data_ptr() in held


@pytest.mark.parametrize("limit", [143, 144, 145])
def test_which_weights_become_inputs(monkeypatch, limit):
    """Large ones, of which the 6 by 6 has 144 bytes, that products and lookups read alone."""
    monkeypatch.setattr(segments, "_LARGE", limit)
    x = floats("x", 2, 6)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 21, MICROSOFT: 1}, name="all")
    sizes = {"large": 6, "small": 5, "read by others": 7}
    weights = {name: StackedTensor((torch.ones(rows, 6),), None) for name, rows in sizes.items()}
    values = [add_initializer(graph, name, tensor) for name, tensor in weights.items()]
    for value in values:
        graph.append(ir.node("FusedMatMul", [x, value], domain=MICROSOFT, attributes={"transB": 1}))
        graph.outputs.append(graph[-1].outputs[0])
    graph.append(ir.node("Neg", [values[2]]))
    graph.outputs.append(graph[-1].outputs[0])
    for node in graph:
        node.outputs[0].name, node.outputs[0].type = f"of {node.op_type} {node.inputs[-1].name}", x.type
    cut = segments.cut_into_segments(ir.Model(graph, ir_version=10), 10**6, {})
    inputs = {name for part in cut.segments for name in part.weights}
    kept = {name for part in cut.segments for name in part.model.graph.initializers}
    assert inputs == ({"large"} if limit <= 144 else set()) and kept == set(sizes) - inputs
