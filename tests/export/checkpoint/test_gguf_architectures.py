"""A model written as GGUF and read again is the same model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from tests.checkpoints.gguf_families import BERTS, ENCODERS, FAMILIES
from tests.checkpoints.gguf_files import make_model, write_gguf
from triform.export.checkpoint.gguf import loading

IDS = torch.arange(3, 23)[None]


def outputs(model):
    with torch.no_grad():
        found = model(input_ids=IDS)
    return found.logits if "logits" in found else found.last_hidden_state


def read(path, name="llama"):
    config = loading.read_gguf_config(path)
    return loading.load_gguf_model(path, config, AutoModel if name in ENCODERS else AutoModelForCausalLM).model


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_comes_back_as_it_was(name, tmp_path):
    size = 61 if name in BERTS else 260
    model = make_model(name, vocab_size=size)
    path = write_gguf(tmp_path / "model.gguf", name, model)
    found = read(path, name)
    assert type(found) is type(model)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("token", [0, 5])
def test_an_encoder_pads_with_the_token_of_its_file(tmp_path, token):
    model = make_model("bert", vocab_size=61)
    path = write_gguf(tmp_path / "model.gguf", "bert", model, keys={"tokenizer.ggml.padding_token_id": token})
    assert loading.read_gguf_config(path).pad_token_id == token
