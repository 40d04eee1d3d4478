"""A graph that takes its weights as inputs computes what PyTorch does, and copies no weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.checkpoints.decoder_families import CONTEXT, FAMILIES, VOCAB, build
from triform.export.graph import fed_weights
from triform.export.graph.cache import cache_info
from triform.export.graph.fusion import fuse
from triform.export.graph.nodes import nodes
from triform.export.graph.tracing import trace
from triform.export.quantize.blocks import lower_to_float
from triform.export.runners import DecoderRunner
from triform.export.verify.decoder import reference_logits, verify_decoder
from triform.export.write import write_graph
from triform.models.decoder.graph import decoder_spec


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "bloom", "tied embeddings", "trocr"])
def test_weights_as_inputs(family, tmp_path, monkeypatch):
    monkeypatch.setattr(fed_weights, "_LARGE", 0)
    model = build(*FAMILIES[family])
    ids = torch.randint(0, VOCAB, (90,), generator=torch.Generator().manual_seed(1)).tolist()
    expected = reference_logits(model, ids)
    spec, prepared = decoder_spec(model, CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    lower_to_float(graph)
    weights = fed_weights.take_weights_as_inputs(graph)
    # Each product and lookup reads its matrix from outside.
    read = {str(node.inputs[1].name) for node in nodes(graph.graph, "FusedMatMul")}
    read |= {str(node.inputs[0].name) for node in nodes(graph.graph, "Gather") if node.inputs[0].name in weights}
    assert read and read <= set(weights)
    write_graph(graph, tmp_path / "decoder.onnx")
    verify_decoder(DecoderRunner(tmp_path / "decoder.onnx", cache_info(spec), 2, weights), expected, ids)


def test_nothing_is_copied(monkeypatch):
    monkeypatch.setattr(fed_weights, "_LARGE", 0)
    model = build(*FAMILIES["llama"])
    spec, prepared = decoder_spec(model, CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    lower_to_float(graph)
    weights = fed_weights.take_weights_as_inputs(graph)
    outputs = {name: array for name, array in weights.items() if name.endswith("o_proj.weight")}
    assert len(outputs) == model.config.num_hidden_layers
    parameters = dict(model.named_parameters())
    for name, array in outputs.items():
        assert np.shares_memory(array, parameters[name.removeprefix("model.")].detach().numpy())
