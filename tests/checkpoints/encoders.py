"""Small text encoders on disk, each with a WordPiece tokenizer of its own, to export whole."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertTokenizerFast

from triform.export.samples import texts

VOCAB = 300
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Every dimension different, so that a swapped axis shows.
BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def word_piece_tokenizer(vocab_size: int = VOCAB) -> Tokenizer:
    """A lowercasing WordPiece tokenizer as BERT's, trained on the calibration text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([texts.read_text("calibration")], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def bert_folder(folder: Path, architecture: str = "BertModel", **config_changes: object) -> Path:
    """A random-weight BERT, saved with its tokenizer.

    Args:
        folder: where to.
        architecture: name of a class of transformers, such as BertForSequenceClassification.
        config_changes: go into its config, such as ``id2label``.
    """
    model_class = getattr(transformers, architecture)
    torch.manual_seed(0)
    model = model_class(BertConfig(**{**BERT, **config_changes})).eval()
    with torch.no_grad():
        # Trained norms and biases are not ones and zeros; random ones show where one is left out.
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer = BertTokenizerFast(
        tokenizer_object=word_piece_tokenizer(), model_max_length=model.config.max_position_embeddings
    )
    tokenizer.save_pretrained(folder)
    return folder


def sentence_folder(
    folder: Path,
    pooling: dict[str, object],
    layers: list[tuple[str, dict[str, object], dict[str, torch.Tensor]]],
    *,
    normalize: bool,
    **config: object,
) -> Path:
    """A random-weight BERT in a folder as sentence-transformers writes them.

    Args:
        folder: where to.
        pooling: what the pooling's config.json says.
        layers: after the pooling: kind, config.json and weights of each.
        normalize: whether a Normalize comes last.
        config: more for config_sentence_transformers.json, such as ``prompts``.
    """
    bert_folder(folder)
    kinds = ["Transformer", "Pooling", *(kind for kind, _, _ in layers), *(["Normalize"] if normalize else [])]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds) if index)]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": True}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    for path, (_, settings, weights) in zip(paths[1:], [("", pooling, {}), *layers], strict=False):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(settings))
        if weights:
            save_file(weights, folder / path / "model.safetensors")
    return folder
