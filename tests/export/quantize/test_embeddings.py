"""Tables looked up by hashes of token ids are quantized like token embeddings; tables of positions are not."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from triform.export.graph.linear import find_linears
from triform.export.graph.tracing import trace
from triform.export.quantize.blocks import Scheme, lower_embeddings, lower_tied_heads, lower_to_float
from triform.export.write import write_graph
from triform.models.spec import GraphInput, GraphSpec

BUCKETS, WIDTH = 16384, 64


class Hashed(torch.nn.Module):
    """CANINE's hash of characters (Clark et al. 2021), and positions, in tables of one size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hashes = torch.nn.Embedding(BUCKETS, WIDTH)
        self.few = torch.nn.Embedding(64, WIDTH)
        self.positions = torch.nn.Embedding(BUCKETS, WIDTH)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1])[None]
        return self.hashes((ids + 1) * 31 % BUCKETS), self.few((ids + 1) * 43 % 64), self.positions(positions)


def test_tables_of_hashes(tmp_path):
    model = Hashed()
    ids = torch.tensor([[0, 97, 0x1F600, 0x10FFFF, 0xD7FF], [1, 2, 3, 0xE000, 0xFFFF]])
    example = GraphInput("input_ids", ids, ((0, "batch"), (1, "sequence")))
    graph = trace(GraphSpec("encoder", model, (example,), ("hashes", "few", "positions"), (), 600))
    assert lower_embeddings(graph, Scheme(8, 32, 4), {}) == 1
    lower_to_float(graph)
    write_graph(graph, tmp_path / "encoder.onnx")
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    hashes, few, positions = session.run(None, {"input_ids": ids.numpy()})
    expected = [tensor.detach().numpy() for tensor in model(ids)]
    # Eight bits over a range of numbers: half a step for rounding to them, half a step for rounding where zero is.
    step = (expected[0].max() - expected[0].min()) / 255
    assert 0 < np.abs(hashes - expected[0]).max() <= step
    np.testing.assert_array_equal(few, expected[1])
    np.testing.assert_array_equal(positions[0], expected[2][0])


class Tied(torch.nn.Module):
    """Rows of a table, and their products with every row of it."""

    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(300, width)
        self.head = torch.nn.Linear(width, 300, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        rows = self.table(ids)
        return rows, self.head(rows)


@pytest.mark.parametrize("width", [64, 48, 40])
def test_a_head_and_its_embedding_read_the_same_bytes(width, tmp_path):
    """Also where the width is no multiple of a block, whose last columns are padding."""
    model = Tied(width)
    ids = torch.arange(300).reshape(2, 150)
    example = GraphInput("input_ids", ids, ((0, "batch"), (1, "sequence")))
    graph = trace(GraphSpec("encoder", model, (example,), ("rows", "logits"), (), 600))
    find_linears(graph)
    # Accuracy level 1 computes with float32 activations.
    scheme = Scheme(8, 32, 1)
    heads = lower_tied_heads(graph, scheme)
    assert len(heads) == 1
    assert lower_embeddings(graph, scheme, heads) == 0
    write_graph(graph, tmp_path / "encoder.onnx")
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    rows, logits = session.run(None, {"input_ids": ids.numpy()})
    expected = model(ids)[0].detach().numpy()
    step = (expected.max() - expected.min()) / 255
    assert 0 < np.abs(rows - expected).max() <= step
    np.testing.assert_allclose(logits, rows @ rows.reshape(300, width).T, rtol=1e-4, atol=1e-4)
    padded = -(-width // 16) * 16
    # Pages of 4096 bytes may end with zeros.
    assert (tmp_path / "encoder.onnx.data").stat().st_size <= 300 * (padded + padded / 16 * 5) + 3 * 4096
