"""Which layers have a sliding window, where a file does not say: as many as in transformers' own configs."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING

from triform.export.checkpoint.gguf.architectures.table import ARCHITECTURES

LAYERS = 13
WITH_WINDOWS = {name: architecture for name, architecture in ARCHITECTURES.items() if architecture.pattern}


def config_of(architecture):
    return CONFIG_MAPPING[architecture.model_type](num_hidden_layers=LAYERS)


def test_every_family_with_windows_is_here():
    assert {"gemma2", "gemma3", "gemma3n", "cohere2", "exaone4", "gpt-oss"} <= set(WITH_WINDOWS)


@pytest.mark.parametrize("name", WITH_WINDOWS)
def test_every_layer_has_one_but_the_last_of_each_period(name):
    architecture = WITH_WINDOWS[name]
    expected = [
        "full_attention" if (layer + 1) % architecture.pattern == 0 else "sliding_attention" for layer in range(LAYERS)
    ]
    assert config_of(architecture).layer_types == expected


@pytest.mark.parametrize("name", [name for name, one in WITH_WINDOWS.items() if one.local_theta])
def test_the_rotary_base_of_layers_with_a_window(name):
    architecture = WITH_WINDOWS[name]
    ropes = config_of(architecture).rope_parameters
    assert ropes["sliding_attention"]["rope_theta"] == architecture.local_theta != ropes["full_attention"]["rope_theta"]
