"""Matrices that stay in a file's blocks are those that gguf's own decoder gives, however they are read."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Format
from transformers import AutoModelForCausalLM

from tests.checkpoints.gguf_blocks import random_tensor
from tests.export.quantize.test_stored_blocks import MIXTURES, write
from triform.export.checkpoint import loading as checkpoint_loading
from triform.export.checkpoint.gguf import loading
from triform.export.checkpoint.gguf import stored_rows as gguf_rows
from triform.export.checkpoint.gguf.blocks import decode
from triform.export.checkpoint.gguf.placement import Placement
from triform.export.checkpoint.gguf.stored_rows import StoredRows, stored_rows
from triform.export.graph.weights import same_memory
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.models import stored_weights
from triform.models.stored_weights import StoredWeight

ORDER = np.array([4, 0, 1, 2, 6, 5, 3])


@pytest.fixture(params=["Q4_K", "Q6_K", "Q5_0", "Q8_0"])
def tensor(request):
    return random_tensor(Format[request.param], 7, 512)


@pytest.fixture(params=[None, ORDER], ids=["as in the file", "in another order"])
def both(request, tensor):
    """What is stored, and the same numbers as floats."""
    expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.format)).view(7, 512)
    stored = stored_rows(Placement(tensor, rows=request.param))
    return stored, expected if request.param is None else expected[ORDER]


def test_what_is_read(both):
    stored, expected = both
    for read in (
        lambda matrix: matrix,
        lambda matrix: matrix[2:5],
        lambda matrix: matrix[1:][2:4],
        lambda matrix: matrix[:, 30:301],
        lambda matrix: matrix.T[3:40, 1:6],
        lambda matrix: matrix.T[:, 2:].T,
        lambda matrix: matrix[-3:],
        lambda matrix: matrix[1::2],
        lambda matrix: matrix.T[1::2],
        lambda matrix: matrix[torch.tensor([[3, 0, 3], [6, 6, 1]])],
        lambda matrix: matrix[2:, :50][torch.tensor([4, 0])],
        lambda matrix: torch.cat([matrix[3:], matrix[:3]]),
        lambda matrix: torch.cat(matrix.split(3)),
    ):
        found = read(stored)
        assert found.shape == read(expected).shape
        assert torch.equal(found.float(), read(expected))
    assert [bound.item() for bound in torch.aminmax(stored)] == [expected.min().item(), expected.max().item()]
    copied = torch.empty(7, 512)
    copied.copy_(stored)
    assert torch.equal(copied, expected)


def test_views_are_not_unpacked(both):
    stored, _ = both
    assert all(isinstance(view, StoredRows) for view in (stored.T, stored[1:3], stored[:, 5:], *stored.split(2)))


def test_computing_with_it(both):
    stored, expected = StoredWeight(both[0]), both[1]
    x = torch.randn(2, 3, 512, generator=torch.Generator().manual_seed(0))
    bias = torch.arange(7.0)
    linear = torch.nn.functional.linear
    assert torch.allclose(linear(x, stored, bias), linear(x, expected, bias), rtol=1e-5, atol=1e-4)
    ids = torch.tensor([[6, 0, 6]])
    assert torch.equal(torch.nn.functional.embedding(ids, stored), torch.nn.functional.embedding(ids, expected))


def test_a_gradient_unpacks_each_row_once(both, monkeypatch):
    unpacked = []
    monkeypatch.setattr(stored_weights, "_AT_ONCE", 1024)
    monkeypatch.setattr(gguf_rows, "decode", lambda tensor: unpacked.append(tensor.shape[0]) or decode(tensor))
    stored, expected = StoredWeight(both[0]), both[1]
    x = torch.randn(5, 512, generator=torch.Generator().manual_seed(0), requires_grad=True)
    output = torch.nn.functional.linear(x, stored)
    assert sum(unpacked) == 7
    upstream = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(output, x, upstream)
    assert sum(unpacked) == 14
    assert torch.allclose(found, upstream @ expected, rtol=1e-5, atol=1e-4)


@pytest.fixture
def every_file_is_large(monkeypatch):
    monkeypatch.setattr(checkpoint_loading, "LARGE_GGUF", 0)


def test_it_cannot_be_changed(both):
    with pytest.raises(TypeError, match="changes a weight that is only read"):
        both[0].mul_(2)


def test_numbers_that_are_none_are_seen(tensor):
    tensor.data[...] = np.where(np.arange(tensor.data.shape[-1]) % 2, 0x7E, tensor.data)
    whole = torch.from_numpy(gguf.dequantize(tensor.data, tensor.format))
    assert not torch.isfinite(whole).all()
    assert not all(map(torch.isfinite, torch.aminmax(stored_rows(Placement(tensor)))))


def test_which_lie_in_the_same_place(tensor):
    first, second = stored_rows(Placement(tensor)), stored_rows(Placement(random_tensor(tensor.format, 7, 512)))
    assert same_memory((first,), (first.detach(),))
    assert not same_memory((first,), (second,))
    assert not same_memory((first[2:4],), (first[3:5],))


@pytest.mark.parametrize("name", MIXTURES)
def test_a_model_computes_the_same(name, tmp_path):
    path = write(tmp_path, name, MIXTURES[name])
    config, ids, found = loading.read_gguf_config(path), torch.tensor([[5, 1, 7, 7, 2]]), []
    for as_stored in (False, True):
        model = loading.load_gguf_model(path, config, AutoModelForCausalLM, as_stored=as_stored).model
        kept = [parameter for parameter in model.parameters() if isinstance(parameter, StoredWeight)]
        assert bool(kept) == as_stored
        with torch.no_grad():
            found.append(model(input_ids=ids).logits)
    assert torch.allclose(*found, rtol=1e-4, atol=1e-4 * float(found[0].abs().max()))


@pytest.mark.parametrize("options", [{"quantize": "int4", "fast": True}, {"quantize": "none"}], ids=str)
@pytest.mark.usefixtures("every_file_is_large")
def test_exports_of_the_numbers_are_those_of_a_file_of_floats(options, tmp_path):
    path, stored = write(tmp_path, "llama", MIXTURES["llama"]), {}
    for name in ("model", "plain"):
        export(str(path.with_name(f"{name}.gguf")), tmp_path / name, ExportOptions(context_length=64, **options))
        stored[name] = (tmp_path / name / "decoder.onnx.data").read_bytes()
    assert stored["model"] == stored["plain"]


@pytest.mark.parametrize(
    "options", [{"quantize": "int8"}, {"target_bits": 6}, {"quantize": "int4", "target": "gpu"}], ids=str
)
@pytest.mark.usefixtures("every_file_is_large")
def test_exports_that_are_calibrated_lose_as_little(options, tmp_path):
    """Sums of energies depend on where numbers lie in memory, so that single integers may be others."""
    path, lost = write(tmp_path, "llama", MIXTURES["llama"]), {}
    for name in ("model", "plain"):
        source = str(path.with_name(f"{name}.gguf"))
        report = export(source, tmp_path / name, ExportOptions(context_length=64, **options))
        lost[name] = report.parity.quantized.mean_kl
    assert lost["model"] == pytest.approx(lost["plain"], rel=0.02)
