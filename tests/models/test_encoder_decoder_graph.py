"""How an encoder-decoder is prepared for tracing, whichever release of transformers it comes from."""

from __future__ import annotations

import inspect

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, VisionEncoderDecoderModel

from triform.models.encoder_decoder.graph import EncoderInputs, encoder_decoder_specs
from triform.models.encoder_decoder.reference import reference_logits

_BART = {
    "vocab_size": 60, "d_model": 48, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 56, "decoder_ffn_dim": 72, "max_position_embeddings": 32,
}  # fmt: skip
_VIT = {
    "model_type": "vit", "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 56, "hidden_size": 40,
    "image_size": 24, "patch_size": 8,
}  # fmt: skip
_TROCR = {
    "model_type": "trocr", "vocab_size": 60, "d_model": 48, "decoder_layers": 3, "decoder_attention_heads": 3,
    "decoder_ffn_dim": 72, "max_position_embeddings": 32, "cross_attention_hidden_size": 40,
}  # fmt: skip


def bart():
    return transformers.BartForConditionalGeneration(CONFIG_MAPPING["bart"](**_BART))


def trocr():
    config = CONFIG_MAPPING["vision-encoder-decoder"](
        encoder=_VIT, decoder=_TROCR, decoder_start_token_id=2, pad_token_id=1
    )
    return VisionEncoderDecoderModel(config)


def sources(model):
    generator = torch.Generator().manual_seed(0)
    if model.main_input_name == "pixel_values":
        return EncoderInputs({"pixel_values": torch.randn(2, 3, 24, 24, generator=generator)}, {})
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return EncoderInputs({"input_ids": torch.randint(4, 60, (2, 5), generator=generator), "attention_mask": mask}, {})


@pytest.mark.parametrize(("make", "layers"), [(bart, 2), (trocr, 3)])
def test_the_cache_goes_in_by_the_name_the_model_has_for_it(make, layers):
    """Warnings are errors here, so a name that transformers has given up would fail."""
    torch.manual_seed(0)
    model = make().eval()
    specs, stack = encoder_decoder_specs(model, sources(model), 32)
    with stack:
        names = {f"cross_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")}
        assert set(specs.encoder.outputs) - {"encoder_attention_mask"} == names
    names = inspect.signature(model.forward).parameters
    assert len({"cache", "past_key_values"} & set(names)) == 1


@pytest.mark.parametrize("make", [bart, trocr])
def test_closing_leaves_the_model_as_it_was(make):
    torch.manual_seed(0)
    model = make().eval()
    source = sources(model)
    ids = torch.tensor([[4, 9, 30], [5, 6, 7]])
    before = reference_logits(model, source.examples, ids)
    _, stack = encoder_decoder_specs(model, source, 32)
    stack.close()
    assert torch.equal(reference_logits(model, source.examples, ids), before)
