"""Classifiers that find the end of a text by the padding after it, where config and tokenizer name it differently."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

import triform
from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.errors import UnsupportedError

TEXTS = ["The ferry left the harbor.", "Fog", "She sailed to the island, and nobody saw her go."]


def classifier(folder, own, tokenizers):
    """A random GPT-2 with three labels, whose config and tokenizer name these tokens for padding."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_embd=48, n_inner=40, n_layer=1, n_head=4, n_positions=64, num_labels=3, pad_token_id=own,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = GPT2ForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), eos_token="<|end|>", pad_token=tokenizers
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("own", "tokenizers"),
    [(1, "<pad>"), (1, None), (None, "<pad>")],
    ids=["other", "config's alone", "tokenizer's alone"],
)
def test_texts_together_have_the_scores_of_each_alone(tmp_path, own, tokenizers):
    folder = classifier(tmp_path / "classifier", own, tokenizers)
    export(folder, tmp_path / "bundle", ExportOptions(quantize="none"))
    model, tokenizer = GPT2ForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for text, found in zip(TEXTS, triform.load_encoder(tmp_path / "bundle").classify(TEXTS), strict=True):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0].softmax(-1)
        assert dict(found) == pytest.approx(
            {f"LABEL_{index}": float(score) for index, score in enumerate(scores)}, abs=1e-5
        )


def test_where_nothing_names_padding_it_is_asked_for(tmp_path):
    folder = classifier(tmp_path / "classifier", None, None)
    with pytest.raises(UnsupportedError, match="no padding token is defined"):
        export(folder, tmp_path / "bundle", ExportOptions(quantize="none"))
