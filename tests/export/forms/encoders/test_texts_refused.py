"""Texts that the model itself refuses as its tokenizer reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertTokenizerFast,
    DPRConfig,
    DPRQuestionEncoder,
    LongformerConfig,
    LongformerForQuestionAnswering,
    PreTrainedTokenizerFast,
)

from tests.checkpoints.decoders import byte_level_tokenizer
from tests.checkpoints.encoders import bert_folder, word_piece_tokenizer
from triform.export import ExportOptions, export
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.errors import ExportError, UnsupportedError

SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 3,
    "max_position_embeddings": 64,
}  # fmt: skip


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


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            LongformerForQuestionAnswering(LongformerConfig(**SMALL, attention_window=4, sep_token_id=3)),
            "exactly three separator tokens",
        ),
        (DPRQuestionEncoder(DPRConfig(**SMALL)), "gives no states of tokens"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_that_cannot_read_any_text_is_refused(tmp_path, model, said):
    """Its own check is an assertion, or it has no outputs of tokens."""
    model.save_pretrained(tmp_path / "model")
    BertTokenizerFast(tokenizer_object=word_piece_tokenizer(), model_max_length=60).save_pretrained(tmp_path / "model")
    with pytest.raises(UnsupportedError, match=f"model cannot be exported: .*{said}"):
        export(str(tmp_path / "model"), tmp_path / "bundle", ExportOptions(quantize="none"))


def test_a_limit_below_0_is_none(tmp_path):
    """As for ONNX graphs; the model's own limit is another."""
    folder = bert_folder(tmp_path / "model", num_hidden_layers=1)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": -1}))
    assert export(str(folder), tmp_path / "bundle", ExportOptions(quantize="none")).bundle.exists()
    assert read_manifest(tmp_path / "bundle").max_length == 96
