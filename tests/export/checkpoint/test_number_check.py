"""Numbers of a checkpoint's configs: those that are none are refused by their keys, and no others are."""

from __future__ import annotations

import math
import re

import pytest

from triform.export.checkpoint.number_check import check_numbers
from triform.runtime.errors import ExportError


@pytest.mark.parametrize(
    ("values", "key", "problem"),
    [
        ({"layer_norm_eps": math.nan}, "layer_norm_eps", "finite"),
        ({"text_config": {"scale": -math.inf}}, "text_config.scale", "finite"),
        ({"mean": [0.5, math.inf]}, "mean", "finite"),
        ({"time_step_limit": [0.0, math.nan]}, "time_step_limit", "finite"),
        ({"rope_theta": "10000"}, "rope_theta", "a number"),
        ({"rope_theta": True}, "rope_theta", "a number"),
        ({"rope_theta": {}}, "rope_theta", "a number"),
        ({"rope_theta": {"full_attention": 1e6, "sliding_attention": "1e4"}}, "rope_theta", "a number"),
        ({"rope_theta": 0}, "rope_theta", "above 0"),
        ({"rope_scaling": {"factor": -2.0}}, "rope_scaling.factor", "above 0"),
        ({"partial_rotary_factor": 0.0}, "partial_rotary_factor", "above 0"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings", "above 0"),
        ({"rope_scaling": {"type": 3}}, "rope_scaling.type", "a name"),
        (
            {"text_config": {"rope_parameters": {"rope_type": ["yarn"]}}},
            "text_config.rope_parameters.rope_type",
            "a name",
        ),
        ({"rope_scaling": {"short_factor": 1.5}}, "rope_scaling.short_factor", "a list of numbers"),
        ({"rope_scaling": {"long_factor": [1, "2"]}}, "rope_scaling.long_factor", "a list of numbers"),
        # A file's own names.
        ({"llama.rope.freq_base": 0.0}, "llama.rope.freq_base", "above 0"),
        ({"gemma3.rope.freq_base_swa": -1.0}, "gemma3.rope.freq_base_swa", "above 0"),
        ({"dtype": "float17"}, "dtype", "the name of a type of PyTorch's"),
        ({"torch_dtype": 16}, "torch_dtype", "the name of a type of PyTorch's"),
        ({"dtype": {"": "float16", "vision": "relu"}}, "dtype", "the name of a type of PyTorch's"),
    ],
)
def test_what_is_no_number_is_named(values, key, problem):
    said = rf"config\.json says {re.escape(key)} is .*, but it must be {problem}; fetch the model again$"
    with pytest.raises(ExportError, match=said):
        check_numbers("config.json", {"hidden_size": 64, **values})


@pytest.mark.parametrize(
    "values",
    [
        {"time_step_limit": [0.0, math.inf], "swiglu_limit": math.inf},
        {"rope_theta": None, "rope_scaling": None, "dtype": None, "short_factor": None},
        {"rope_theta": {"full_attention": 1e6, "sliding_attention": 1e4}},
        # They neither divide nor are raised to a power.
        {"mscale": 0, "beta_fast": -1, "attention_factor": 0.0},
        {
            "rope_theta": 1e-9,
            "rope_scaling": {"factor": 1, "type": "linear", "short_factor": [], "long_factor": [1, 2.5]},
        },
        # No type of rotary embeddings.
        {"decoder": {"type": 3}},
        {"dtype": "auto", "torch_dtype": "torch.bfloat16"},
        {"dtype": {"": "float16", "vision": None}},
        {"eps": 0, "scale": -3.5},
    ],
)
def test_others_are_left_alone(values):
    check_numbers("config.json", values)
