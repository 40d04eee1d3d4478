"""Tables looked up by hashes of token ids are quantized like token embeddings; tables of positions are not."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch

from triform.export.graph.tracing import trace
from triform.export.quantize.blocks import Scheme, lower_embeddings, lower_to_float
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
