"""Small random-weight models that read images, on disk with their image processors, every dimension different."""

from __future__ import annotations

import io
import string
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import processors
from transformers import (
    CONFIG_MAPPING,
    BeitImageProcessorPil,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    MobileViTImageProcessorPil,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipTokenizer,
    ViTImageProcessorPil,
)

from tests.checkpoints.decoders import VOCAB, byte_level_tokenizer
from triform.export.samples import texts

LABELS = ["cat", "dog", "horse", "a very long lorry", "étoile", "boat", "tree"]
_TOWER = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
_LABELED = {"id2label": dict(enumerate(LABELS)), "label2id": {name: index for index, name in enumerate(LABELS)}}

# family: (model type, config, image processor)
FAMILIES: dict[str, tuple[str, dict[str, Any], Any]] = {
    # Neither images nor patches are square.
    "vit": (
        "vit",
        {**_TOWER, "image_size": (24, 40), "patch_size": (4, 8)},
        ViTImageProcessorPil(size={"height": 24, "width": 40}),
    ),
    "deit": (
        "deit",
        {**_TOWER, "image_size": 32, "patch_size": 8},
        DeiTImageProcessorPil(size={"height": 37, "width": 41}, crop_size={"height": 32, "width": 32}),
    ),
    # Sees smaller images than it was made for: positions are interpolated.
    "dinov2": (
        "dinov2",
        {**_TOWER, "mlp_ratio": 2, "image_size": 42, "patch_size": 7},
        BitImageProcessorPil(size={"shortest_edge": 39}, crop_size={"height": 35, "width": 35}),
    ),
    "beit": (
        "beit",
        {**_TOWER, "image_size": 32, "patch_size": 8, "use_relative_position_bias": True},
        BeitImageProcessorPil(size={"height": 32, "width": 32}),
    ),
    # Without tokens and class token: convolutions, pooled. Crops a share of what it resizes to.
    "convnext": (
        "convnext",
        {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 2, 1, 1], "image_size": 48},
        ConvNextImageProcessorPil(size={"shortest_edge": 48}, crop_pct=0.9),
    ),
    # Blue comes first.
    "mobilevit": (
        "mobilevit",
        {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64], "num_attention_heads": 2,
         "image_size": 64, "patch_size": 2},
        MobileViTImageProcessorPil(size={"shortest_edge": 71}, crop_size={"height": 64, "width": 64}),
    ),
}  # fmt: skip


def randomized(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights that show what is left out: trained norms and biases are not ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.2 * noise if parameter.dim() == 1 else 0.15 * noise)
            if name in ("logit_scale", "logit_bias"):
                parameter.fill_({"logit_scale": 1.7, "logit_bias": -0.4}[name])
    return model.eval()


def vision_folder(folder: Path, family: str, architecture: str, **changes: object) -> Path:
    """A family's model with a class of transformers, such as ViTForImageClassification, saved with its processor."""
    model_type, settings, processor = FAMILIES[family]
    config = CONFIG_MAPPING[model_type](**{**settings, **_LABELED, **changes})
    torch.manual_seed(0)
    randomized(getattr(transformers, architecture)(config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def clip_folder(folder: Path, layers: int = 2, eos_token_id: int = VOCAB - 1) -> Path:
    """A CLIP whose towers have widths of their own."""
    text = {
        "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": layers, "num_attention_heads": 3,
        "vocab_size": VOCAB, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": eos_token_id,
        "pad_token_id": 0,
    }  # fmt: skip
    vision = {**_TOWER, "num_hidden_layers": layers, "image_size": 28, "patch_size": 7}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)
    torch.manual_seed(0)
    randomized(transformers.CLIPModel(config)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 31}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    tokenizer = byte_level_tokenizer(VOCAB - 1)
    tokenizer.add_special_tokens(["<|eot|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|eot|>", special_tokens=[("<s>", 1), ("<|eot|>", VOCAB - 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|eot|>", pad_token="<pad>", model_max_length=40
    ).save_pretrained(folder)
    return folder


def siglip_folder(folder: Path) -> Path:
    """A SigLIP, whose texts are always padded to 64 tokens that are all read."""
    settings = {
        "hidden_size": 48, "intermediate_size": 52, "num_hidden_layers": 2, "num_attention_heads": 3,
        "vocab_size": VOCAB, "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    vision = {**_TOWER, "image_size": 30, "patch_size": 6}
    config = SiglipConfig(text_config=settings, vision_config=vision)
    torch.manual_seed(0)
    randomized(transformers.SiglipModel(config)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 30, "width": 30}).save_pretrained(folder)
    # One that exists in Python only, lowercases, and sees no punctuation.
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts.read_text("calibration").lower().splitlines()), model_writer=content,
        vocab_size=VOCAB, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "learned.model").write_bytes(content.getvalue())
    SiglipTokenizer(str(folder / "learned.model"), model_input_names=["input_ids"]).save_pretrained(folder)
    return folder


def siglip2_folder(folder: Path, architecture: str = "Siglip2Model") -> Path:
    """A SigLIP 2 for images of any shape, which become up to 23 patches; texts are padded to 64 tokens."""
    text = {
        "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 1, "num_attention_heads": 3,
        "vocab_size": VOCAB, "max_position_embeddings": 64, "projection_size": 48,
    }  # fmt: skip
    vision = {**_TOWER, "num_hidden_layers": 1, "patch_size": 5, "num_patches": 36}
    config = Siglip2Config(text_config=text, vision_config=vision, **_LABELED)
    torch.manual_seed(0)
    randomized(getattr(transformers, architecture)(config)).save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=5, max_num_patches=23).save_pretrained(folder)
    words = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        "▁",
        *string.ascii_lowercase,
        *(f"▁{letter}" for letter in "abc"),
    ]
    Siglip2Tokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=[("▁", letter) for letter in "abc"],
        model_max_length=64,
        padding_side="right",
        model_input_names=["input_ids"],
    ).save_pretrained(folder)
    return folder


# By name, what writes the checkpoint of a model that reads images into a folder.
IMAGE_MODELS = {
    "vit": lambda folder: vision_folder(folder, "vit", "ViTForImageClassification"),
    "deit": lambda folder: vision_folder(folder, "deit", "DeiTForImageClassification", num_labels=1),
    "dinov2": lambda folder: vision_folder(folder, "dinov2", "Dinov2Model"),
    "beit": lambda folder: vision_folder(folder, "beit", "BeitForImageClassification", problem_type="regression"),
    "convnext": lambda folder: vision_folder(folder, "convnext", "ConvNextForImageClassification"),
    "mobilevit": lambda folder: vision_folder(folder, "mobilevit", "MobileViTForImageClassification"),
    "clip": clip_folder,
    "siglip": siglip_folder,
    "siglip2": siglip2_folder,
    "siglip2 with labels": lambda folder: siglip2_folder(folder, "Siglip2ForImageClassification"),
}
