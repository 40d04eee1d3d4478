"""Funnel-Transformer, whose blocks pool their tokens, equals transformers for texts of every length that it pools."""

from __future__ import annotations

import onnxruntime as ort
import pytest
import torch

from tests.checkpoints.decoder_families import CONTEXT, VOCAB
from tests.checkpoints.encoder_families import build_encoder
from tests.models.test_encoder_families import assert_close, reference
from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import trace
from triform.export.quantize.blocks import lower_to_float
from triform.export.write import write_graph
from triform.models.encoder.equal_lengths import shortest_row, without_padding
from triform.models.encoder.graph import encoder_spec
from triform.models.encoder.tasks import text_task

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.parametrize("settings", [{}, {"pooling_type": "max", "pool_q_only": False}])
def test_every_length_matches_transformers(settings, tmp_path):
    model = build_encoder("funnel", "FunnelModel", **settings)
    task = without_padding(model, text_task("feature-extraction", INPUTS, False))
    assert task.inputs == ("input_ids", "token_type_ids")
    # Of 5 tokens the first block leaves 3, which the next one still pools; of 4 it leaves 2.
    shortest = shortest_row(model, task)
    assert shortest == 5
    spec, prepared = encoder_spec(model, task, "encoder", CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    lower_to_float(graph)
    write_graph(graph, tmp_path / "encoder.onnx")
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    for length in (*range(shortest, 14), 40):
        ids = torch.randint(3, VOCAB, (2, length), generator=generator)
        # The first token is of a kind of its own, as funnel's tokenizer has it.
        types = torch.cat([torch.full((2, 1), 2), torch.randint(0, 2, (2, length - 1), generator=generator)], 1)
        batch = {"input_ids": ids, "token_type_ids": types}
        (actual,) = session.run(["last_hidden_state"], {name: tensor.numpy() for name, tensor in batch.items()})
        assert_close(torch.from_numpy(actual), reference(model, batch).last_hidden_state)
