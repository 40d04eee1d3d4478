"""Small models that read where words stand on their page, and tokenizers that give boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from tests.checkpoints.decoders import byte_level_tokenizer
from tests.checkpoints.encoders import BERT, word_piece_tokenizer

# Every dimension different, so that a swapped axis shows. Coordinates go up to 1000.
_LAYOUTS: dict[str, dict[str, Any]] = {
    "layoutlm": {**BERT, "max_2d_position_embeddings": 1024},
    "lilt": {**BERT, "max_2d_position_embeddings": 1030, "channel_shrink_ratio": 2, "vocab_size": 420},
    # Its angles need an even part of a head's width.
    "bros": {**BERT, "hidden_size": 64},
}


def layout_model(architecture: str, **changes: Any) -> PreTrainedModel:
    """A random-weight model of one layer, of a class of transformers such as LiltForQuestionAnswering."""
    model_class = getattr(transformers, architecture)
    settings = _LAYOUTS[model_class.config_class.model_type]
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**{**settings, "num_hidden_layers": 1, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                # So large that each coordinate shows in the results.
                parameter.mul_(12)
    return model


def bert_tokenizer(max_length: int = 96) -> Any:
    """What LayoutLM and BROS have, which gives no boxes."""
    return transformers.BertTokenizerFast(tokenizer_object=word_piece_tokenizer(), model_max_length=max_length)


def word_piece_page_tokenizer(max_length: int = 96) -> Any:
    """LayoutLMv2's, which gives boxes: the separator's is the lower right corner."""
    words = word_piece_tokenizer().get_vocab()
    return transformers.LayoutLMv2Tokenizer(vocab=words, model_max_length=max_length)


def byte_level_page_tokenizer(max_length: int = 96) -> Any:
    """LayoutLMv3's, which LiLT has too, and which gives boxes: those of special tokens are zeros."""
    model = json.loads(byte_level_tokenizer(395).to_str())["model"]
    names = {"<s>": "<s>", "<|end|>": "</s>", "<pad>": "<pad>", "<|user|>": "<unk>", "<|system|>": "<mask>"}
    words = {names.get(word, word): index for word, index in model["vocab"].items()}
    merges = [tuple(pair) for pair in model["merges"]]
    return transformers.LayoutLMv3Tokenizer(vocab=words, merges=merges, model_max_length=max_length)


def layout_folder(folder: Path, model: PreTrainedModel, tokenizer: Any) -> Path:
    """Save a checkpoint."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
