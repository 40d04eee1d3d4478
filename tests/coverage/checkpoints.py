"""Makes tiny checkpoints of random weights, with tokenizers and feature extractors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import processors
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from tests.checkpoints.decoders import byte_level_tokenizer
from tests.checkpoints.encoders import word_piece_tokenizer
from tests.coverage.configs import TOKENS, VOCAB, small_settings
from tests.coverage.dimensions import SMALL

_MOST_PARAMETERS = 40_000_000
# Parts of the names of embeddings, whose scale stays, and of the logarithms of decays.
_UNSCALED = ("embed", "wte", "wpe", "A_log", "position")


class NotTriedError(Exception):
    """No tiny checkpoint of a type could be made, or transformers itself cannot run it: says nothing about Triform."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty, or else the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def build(name: str, auto_class: Any, layers: int | None = None, **changes: Any) -> PreTrainedModel:
    """A tiny model of random weights.

    Args:
        name: the type, or a variant of one.
        auto_class: a class of transformers with `from_config`.
        layers: see `small_settings`.
        changes: go into the config.

    Raises:
        NotTriedError: its config or its model could not be made small.
    """
    try:
        config_class = CONFIG_MAPPING[name.split("+")[0]]
        config = config_class(**{**small_settings(config_class(), name, layers), **changes})
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in auto_class.from_config(config).parameters())
    except Exception as error:
        raise NotTriedError(f"its config: {type(error).__name__}: {first_line(error)}") from error
    if count > _MOST_PARAMETERS:
        raise NotTriedError(f"its config made small still has {count / 1e6:.0f} million parameters")
    return random_model(config, auto_class)


def random_model(config: PretrainedConfig, auto_class: Any) -> PreTrainedModel:
    """A model of a config whose weights are random.

    Raises:
        NotTriedError: it could not be made.
    """
    try:
        torch.manual_seed(0)
        model = auto_class.from_config(config).float().eval()
        _randomize(model)
        if getattr(model, "generation_config", None) is not None:
            for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
                setattr(model.generation_config, name, TOKENS[name])
    except Exception as error:
        raise NotTriedError(f"its model: {type(error).__name__}: {first_line(error)}") from error
    return model


def _randomize(model: PreTrainedModel) -> None:
    """Make norms, biases and statistics random too, so that none of them can be left out unnoticed."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.numel():
                continue
            if not torch.isfinite(parameter).all() or parameter.abs().max() > 1e4:
                parameter.copy_(0.05 * torch.randn_like(parameter))
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif not any(part in name for part in _UNSCALED):
                parameter.mul_(3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.mul_(1 + 0.3 * torch.rand_like(buffer))


def check_reads_text(model: PreTrainedModel) -> None:
    """Check that transformers runs a model on token ids alone.

    Raises:
        NotTriedError: it does not, or its outputs are not finite.
    """
    try:
        with torch.no_grad():
            # Classifiers of encoder-decoders need the end of a text.
            ids = torch.tensor([[*range(5, 45), TOKENS["eos_token_id"]]])
            output = next(iter(model(input_ids=ids).values()))
    except Exception as error:
        raise NotTriedError(f"transformers cannot run it: {type(error).__name__}: {first_line(error)}") from error
    if not torch.isfinite(output).all():
        raise NotTriedError("its outputs are not finite")


def save(model: PreTrainedModel, folder: Path) -> None:
    """Save a model.

    Raises:
        NotTriedError: transformers cannot save it.
    """
    try:
        model.save_pretrained(folder)
    except Exception as error:
        raise NotTriedError(f"saving it: {type(error).__name__}: {first_line(error)}") from error


def save_byte_level_tokenizer(folder: Path, *, closes_texts: bool = False) -> None:
    """Save a byte-level tokenizer; with `closes_texts` it ends each text as those of encoder-decoders do."""
    backend = byte_level_tokenizer(VOCAB)
    if closes_texts:
        end = TOKENS["eos_token_id"]
        backend.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", end)])
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|end|>", pad_token="<pad>", model_max_length=256
    ).save_pretrained(folder)


def save_word_piece_tokenizer(folder: Path) -> None:
    """Save a WordPiece tokenizer as BERT's."""
    PreTrainedTokenizerFast(
        tokenizer_object=word_piece_tokenizer(VOCAB), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_max_length=256,
    ).save_pretrained(folder)  # fmt: skip


def save_shapes_and_sounds(folder: Path) -> None:
    """Make a folder's WordPiece tokenizer one of RoCBert, which gives the shape and the sound of each token."""
    words = sorted((ids, word) for word, ids in word_piece_tokenizer(VOCAB).get_vocab().items())
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    files = [folder / name for name in ("vocab.txt", "word_shape.json", "word_pronunciation.json")]
    files[0].write_text("".join(f"{word}\n" for _, word in words), encoding="utf-8")
    for file, count in zip(files[1:], (47, 43), strict=True):
        file.write_text(json.dumps({word: 1 + index % count for index, word in words}), encoding="utf-8")
    transformers.RoCBertTokenizer(*map(str, files), model_max_length=256).save_pretrained(folder)


def save_feature_extractor(model_type: str, folder: Path) -> None:
    """Save the feature extractor of a type, for as many bands as its tiny config has.

    Raises:
        NotTriedError: it cannot be made.
    """
    # transformers lists one for waveforms there, but the model reads features.
    known = {**FEATURE_EXTRACTOR_MAPPING_NAMES, "wav2vec2-bert": "SeamlessM4TFeatureExtractor"}
    name = known.get(model_type, "Wav2Vec2FeatureExtractor")
    extractor = getattr(transformers, name)
    try:
        if name == "Wav2Vec2FeatureExtractor":
            extractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
            return
        try:
            bands = dict.fromkeys(("feature_size", "num_mel_bins"), SMALL["num_mel_bins"])
            sizes = (
                bands if name.startswith(("SeamlessM4T", "GraniteSpeech5")) else {"feature_size": bands["feature_size"]}
            )
            extractor(**sizes).save_pretrained(folder)
        except TypeError:
            extractor().save_pretrained(folder)
    except Exception as error:
        raise NotTriedError(f"{name}: {first_line(error)}") from error
