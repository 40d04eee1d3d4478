"""Texts that the model itself refuses as its tokenizer reads them."""

from __future__ import annotations

import pytest
import torch
from transformers import BartConfig, BartForSequenceClassification, PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export import ExportOptions, export
from triform.runtime.errors import ExportError


def test_a_classifier_that_looks_for_an_end_that_no_text_has(tmp_path):
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=400, d_model=24, encoder_layers=1, decoder_layers=1, encoder_attention_heads=3,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=56, max_position_embeddings=64, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, decoder_start_token_id=2, num_labels=3,
    )  # fmt: skip
    BartForSequenceClassification(config).save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), eos_token="<|end|>", pad_token="<pad>", model_max_length=60
    ).save_pretrained(tmp_path / "model")
    with pytest.raises(ExportError, match=r"model does not take texts as its tokenizer reads them: .*<eos> token"):
        export(str(tmp_path / "model"), tmp_path / "bundle", ExportOptions(quantize="none"))
