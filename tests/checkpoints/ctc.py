"""Makes small models for CTC of random weights, with their tokenizer and feature extractor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLU'")
RATE = 16000
# 160 samples to a frame.
SMALL_CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": [12, 16], "conv_stride": [16, 10], "conv_kernel": [20, 10], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip


def save_ctc_checkpoint(folder: Path, model_type: str, norm: str, **changes: Any) -> None:
    """Save a model that reads waveforms.

    Args:
        folder: to save into; must exist.
        model_type: of the wav2vec2 family.
        norm: of the first convolution: "layer" for each frame, "group" over all time, which padding would change.
        changes: go into the config.
    """
    save_ctc_tokenizer(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=norm == "layer").save_pretrained(folder)
    torch.manual_seed(0)
    settings = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40}
    config = AutoConfig.for_model(
        model_type, vocab_size=len(TOKENS), feat_extract_norm=norm, **{**settings, **SMALL_CONVOLUTIONS, **changes}
    )
    model = AutoModelForCTC.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(3)
    model.save_pretrained(folder)


def save_ctc_tokenizer(folder: Path) -> None:
    """Save a tokenizer of letters with an end of words."""
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
