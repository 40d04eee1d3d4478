"""Rotary embeddings of GGUF files: each key by the rule of llama.cpp, and yarn's factor by its formula."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.rope import apply_frequency_factors, check_rotated_part, rope_parameters
from triform.export.checkpoint.gguf.settings import Settings
from triform.runtime.errors import ExportError

LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"


def floats(name, values):
    data = np.array(values, np.float32)
    return Tensor(name, GGMLQuantizationType.F32, data.shape, data)


def a_file(*tensors, arch="llama", **values):
    """Underscores that are doubled stand for dots."""
    values = {f"{arch}.{key.replace('__', '.')}": value for key, value in values.items()}
    by_name = {tensor.name: tensor for tensor in tensors}
    return SimpleNamespace(path=Path("folder/m.gguf"), architecture=arch, values=values, tensors=by_name)


def parameters(*tensors, arch="llama", given=False, original=None, **values):
    file = a_file(*tensors, arch=arch, **values)
    return rope_parameters(file, Settings(file), 64, given=given, original=original)


PLAIN = {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {}),
        ({"rope__freq_base": 500000}, {"rope_theta": 500000.0}),
        ({"rope__dimension_count": 64}, {}),
        ({"rope__dimension_count": 16}, {"partial_rotary_factor": 0.25}),
        ({"rope__dimension_count": 64, "given": True}, {"partial_rotary_factor": 1.0}),
        ({"rope__scaling__finetuned": True}, {}),
        ({"rope__scaling__type": "none", "rope__scaling__factor": 4.0}, {}),
        ({"rope__scaling__type": "linear", "rope__scaling__factor": 1.0}, {}),
        ({"rope__scaling__factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope__scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope__scaling__factor": 4.0, "rope__scale_linear": 2.0}, {"rope_type": "linear", "factor": 4.0}),
        # 0 is a key that says nothing.
        ({"rope__scaling__factor": 0.0, "rope__scaling__attn_factor": 0.0}, {}),
    ],
)
def test_plain_and_linear(keys, expected):
    assert parameters(**keys) == PLAIN | expected


YARN = {"rope__scaling__type": "yarn", "rope__scaling__factor": 8.0, "context_length": 4096}
FOUND = PLAIN | {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {}),
        ({"rope__scaling__original_context_length": 1024}, {"original_max_position_embeddings": 1024}),
        ({"original": 2048}, {"original_max_position_embeddings": 2048}),
        (
            {"original": 2048, "rope__scaling__original_context_length": 1024},
            {"original_max_position_embeddings": 1024},
        ),
        ({"rope__scaling__yarn_beta_fast": 30, "rope__scaling__yarn_ext_factor": 1.0}, {"beta_fast": 30.0}),
        ({"rope__scaling__yarn_beta_slow": 2}, {"beta_slow": 2.0}),
        ({"rope__scaling__yarn_log_multiplier": 0.7}, {"mscale": 1.0, "mscale_all_dim": 0.7}),
        ({"rope__scaling__yarn_attn_factor": 0.5}, {"attention_factor": 0.5}),
        ({"rope__scaling__yarn_attn_factor": 0.5, "rope__scaling__attn_factor": 3.0}, {"attention_factor": 1.5}),
        (
            {"rope__scaling__yarn_attn_factor": 0.5, "rope__scaling__yarn_log_multiplier": 0.7},
            {"attention_factor": 0.5},
        ),
        # YaRN's paper, equation 22: the factor is 0.1 ln(s) + 1.
        ({"rope__scaling__attn_factor": 2.0}, {"attention_factor": 2 * (0.1 * math.log(8) + 1)}),
        ({"rope__scaling__attn_factor": 1.0}, {}),
    ],
)
def test_yarn(keys, expected):
    assert parameters(**YARN, **keys) == FOUND | expected


def test_files_of_deepseek_have_a_tenth_of_the_scale():
    found = parameters(arch="deepseek2", **YARN, rope__scaling__yarn_log_multiplier=0.0707)
    assert (found["mscale"], found["mscale_all_dim"]) == (pytest.approx(0.707), pytest.approx(0.707))


FACTORS = (floats(LONG, [1, 2]), floats(SHORT, [1, 1.5]))


def test_longrope():
    found = parameters(*FACTORS, rope__scaling__original_context_length=512, rope__scaling__attn_factor=1.25)
    assert found == PLAIN | {
        "rope_type": "longrope", "long_factor": [1, 2], "short_factor": [1, 1.5],
        "original_max_position_embeddings": 512, "attention_factor": 1.25, "factor": 1.0,
    }  # fmt: skip
    assert parameters(*FACTORS, original=256)["original_max_position_embeddings"] == 256


LACKS = r"^m\.gguf scales its positions by longrope but lacks "


@pytest.mark.parametrize(
    ("tensors", "keys", "message"),
    [
        (FACTORS, {}, LACKS),
        (FACTORS[:1], {"original": 256}, LACKS),
        (FACTORS[1:], {"original": 256}, LACKS),
        ((), {"rope__scaling__type": "longrope", "original": 256}, LACKS),
        ((), {"rope__scaling__type": "su"}, r"^m\.gguf scales its positions by 'su', which is not supported$"),
        ((), {"rope__scaling__attn_factor": 2.0}, r"^m\.gguf has rope\.scaling\.attn_factor = 2\.0, which is not"),
        ((), YARN | {"rope__scaling__yarn_ext_factor": 0.5}, r"llama\.rope\.scaling\.yarn_ext_factor = 0\.5"),
        (
            (),
            YARN | {"rope__scaling__yarn_log_multiplier": 0.7, "rope__scaling__attn_factor": 2.0},
            r"^llama\.rope\.scaling has both attn_factor and yarn_log_multiplier$",
        ),
    ],
)
def test_what_is_not_supported(tensors, keys, message):
    with pytest.raises(ExportError, match=message):
        parameters(*tensors, **keys)


def model_with(*frequencies):
    """One module for each, and the first one's under another name too."""
    model = torch.nn.Module()
    for number, values in enumerate(frequencies):
        part = torch.nn.Module()
        part.register_buffer("inv_freq", torch.tensor(values))
        part.register_buffer("other", torch.ones(len(values)))
        model.add_module(f"part{number}", part)
        if not number:
            part.register_buffer("original_inv_freq", part.inv_freq)
    return model


def test_frequencies_are_divided_once():
    model = model_with([8.0, 6.0], [4.0, 3.0])
    apply_frequency_factors(a_file(floats("rope_freqs.weight", [2, 3])), model)
    assert model.part0.inv_freq.tolist() == [4, 2] and model.part1.inv_freq.tolist() == [2, 1]
    assert model.part0.original_inv_freq.tolist() == [4, 2] and model.part0.other.tolist() == [1, 1]
    apply_frequency_factors(a_file(), model)
    assert model.part0.inv_freq.tolist() == [4, 2]
    with pytest.raises(ExportError, match=r"^m\.gguf: rope_freqs\.weight has 3 factors for 2 frequencies$"):
        apply_frequency_factors(a_file(floats("rope_freqs.weight", [2, 3, 4])), model)


@pytest.mark.parametrize(
    ("keys", "rotated"),
    [
        ({}, None),
        ({"rope__dimension_count": 4}, None),
        ({"rope__dimension_count": 8, "rope__dimension_count_swa": 4}, None),
        ({"rope__dimension_count": 2}, "4"),
        ({"rope__dimension_count": 8}, "4"),
        ({"rope__dimension_count": 2, "rope__dimension_count_swa": 2}, "4"),
    ],
)
def test_the_rotated_part(keys, rotated):
    file, model = a_file(**keys), model_with([1.0, 0.5])
    if rotated is None:
        check_rotated_part(file, model)
        return
    with pytest.raises(ExportError, match=rf"not supported: its model rotates {rotated} dimensions$"):
        check_rotated_part(file, model)
