"""The sweep of quantized exports: types of each form lose what rounding loses, and what loses more is noticed."""

from __future__ import annotations

import pytest
import torch

from tests.coverage.attempt import attempt
from tests.coverage.comparisons import DifferentError
from tests.coverage.forms import FORMS
from tests.coverage.quantized import Scheme, compare_quantized, rounded
from tests.coverage.records import WORKS
from triform.export.pipeline import export


@pytest.mark.parametrize(
    ("form", "name", "scheme"),
    [("decoder", "qwen3", "5"), ("encoder", "electra", "int4"), ("encoder-decoder", "plbart", "int8")],
)
def test_a_quantized_type_loses_what_rounding_loses(form, name, scheme, tmp_path):
    record = attempt(form, name, tmp_path, Scheme(scheme))
    assert record.result == WORKS, record.reason


def test_other_weights_are_noticed(tmp_path):
    """What the checkpoint's second layer adds has the other sign in the bundle."""
    FORMS["decoder"].save("gpt2", tmp_path / "gpt2")
    scheme = Scheme("int4")
    export(str(tmp_path / "gpt2"), tmp_path / "bundle", scheme.options())
    assert compare_quantized("decoder", tmp_path / "gpt2", tmp_path / "bundle", scheme)
    _negate(tmp_path / "gpt2" / "model.safetensors", "transformer.h.1.mlp.c_proj.weight")
    with pytest.raises(DifferentError, match="loses"):
        compare_quantized("decoder", tmp_path / "gpt2", tmp_path / "bundle", scheme)


def _negate(file, name):
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    save_file({**weights, name: -weights[name]}, file, {"format": "pt"})


def test_weights_are_rounded_by_blocks():
    layer = torch.nn.Linear(64, 1)
    with torch.no_grad():
        layer.weight[0, :32] = torch.arange(32) * 0.1
        layer.weight[0, 32:] = torch.arange(32) * 0.001
    result = rounded(layer, 4).weight[0]
    # Seven levels above zero, of a seventh of the block's largest each.
    assert torch.allclose(result[:32] / (3.1 / 7), torch.round(torch.arange(32) * 0.1 / (3.1 / 7)), atol=1e-5)
    assert torch.allclose(result[32:] * 100, result[:32], atol=1e-5)
