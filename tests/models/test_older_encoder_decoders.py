"""Encoder-decoders whose attention is code of their own, and pairs of models: exported whole, and run."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING

from tests.coverage.attempt import attempt
from tests.coverage.records import WORKS
from tests.helpers.families import families
from triform.models.attention.local_global import whole_attention_limit
from triform.models.encoder_decoder.graph import EncoderInputs, encoder_decoder_specs
from triform.models.errors import UnsupportedModelError

# LED's windows are shorter than the texts, and its encoder pads a text to whole windows. The experts of Switch
# Transformers take fewer tokens of a text than choose them.
TYPES = ("mvp", "led", "bigbird_pegasus", "encoder-decoder", "switch_transformers")
MORE_TYPES = {"mvp", "bigbird_pegasus"}
SMALL = {
    "vocab_size": 60, "d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 3,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 56, "decoder_ffn_dim": 72, "max_position_embeddings": 32,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "expert_capacity": 8, "encoder_sparse_step": 1, "decoder_sparse_step": 1}


@pytest.mark.parametrize("name", families(TYPES, MORE_TYPES))
def test_it_writes_what_transformers_writes(name, tmp_path):
    record = attempt("encoder-decoder", name, tmp_path)
    assert record.result == WORKS, record.reason
    assert {"GroupQueryAttention", "MultiHeadAttention"} <= set(record.operators)


@pytest.mark.parametrize(
    ("architecture", "model_type", "settings", "reason"),
    [
        ("NllbMoeForConditionalGeneration", "nllb-moe", {**SMALL, **EXPERTS}, "experts take a limited number"),
        ("MvpForConditionalGeneration", "mvp", {**SMALL, "use_prompt": True, "prompt_length": 3}, "has prompts"),
    ],
)
def test_what_cannot_be_exported_is_refused(architecture, model_type, settings, reason):
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(CONFIG_MAPPING[model_type](**settings)).eval()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    sources = EncoderInputs({"input_ids": torch.arange(4, 14).reshape(2, 5), "attention_mask": mask}, {})
    with pytest.raises(UnsupportedModelError, match=reason):
        encoder_decoder_specs(model, sources, 16)


def test_big_bird_reads_no_more_than_it_attends_to_as_a_whole():
    """Of 3 random blocks of 64 tokens: (5 + 2 * 3) * 64 = 704, as transformers says in a warning of its own."""
    sparse = CONFIG_MAPPING["big_bird"](attention_type="block_sparse", num_random_blocks=3, block_size=64)
    whole = CONFIG_MAPPING["big_bird"](attention_type="original_full")
    assert (whole_attention_limit(sparse), whole_attention_limit(whole)) == (704, None)
