"""One small random-weight encoder-decoder a family, on disk with its tokenizer; no two dimensions are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq, PreTrainedModel, VisionEncoderDecoderModel

from tests.checkpoints.seq2seq_tokenizers import BUILDERS, Trained

# Tokens that end an answer besides the model's own, one of so many: answers of different lengths come of it.
ENDS_EVERY = 29
LENGTH = 48

_BART: dict[str, Any] = {
    "d_model": 48, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 56, "decoder_ffn_dim": 72,
}  # fmt: skip
_T5: dict[str, Any] = {
    "d_model": 40, "d_kv": 24, "d_ff": 56, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 3,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
}  # fmt: skip
_GEMMA: dict[str, Any] = {
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "sliding_window": 5,
    "max_position_embeddings": LENGTH,
}  # fmt: skip
# A piece of most texts, which T5Gemma 2 looks up in a table of its own.
_OWN_WORD = ","
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
_IMAGES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 56,
    "hidden_size": 40,
}


@dataclass(frozen=True)
class Family:
    """What is special about a family.

    Attributes:
        model_type: of transformers' config.
        settings: of its config.
        tokenizer: its name in `BUILDERS`.
        generation: what its generation config asks for, by transformers' names.
        extractor: of what it hears or sees.
        source_lang: the language its texts are in, where it is told.
        target_lang: the language it is asked for, where it has a choice.
        reads: tokens of a text at most, where the config sets no limit.
        seed: of the random weights; one whose answers neither repeat a token nor come from near ties.
        task: named to the export, where a part of the model is for another.
    """

    model_type: str
    settings: dict[str, Any]
    tokenizer: str
    generation: dict[str, Any] = field(default_factory=dict)
    extractor: Callable[[], Any] | None = None
    source_lang: str | None = None
    target_lang: str | None = None
    reads: int | None = None
    seed: int = 0
    task: str | None = None


def _whisper_ears() -> Any:
    return transformers.WhisperFeatureExtractor(feature_size=12, chunk_length=10)


def _kaldi_ears() -> Any:
    return transformers.Speech2TextFeatureExtractor(feature_size=24, num_mel_bins=24)


def _bare_ears() -> Any:
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)


def _vit_eyes() -> Any:
    return transformers.ViTImageProcessorPil(size={"height": 24, "width": 24})


def _deit_eyes() -> Any:
    return transformers.DeiTImageProcessorPil(size={"height": 29, "width": 27}, crop_size={"height": 24, "width": 24})


def _reading(encoder: str) -> dict[str, Any]:
    return {
        "encoder": {"model_type": encoder, **_IMAGES, "image_size": 24, "patch_size": 8},
        "decoder": {
            "model_type": "trocr", "d_model": 48, "decoder_layers": 3, "decoder_attention_heads": 3,
            "decoder_ffn_dim": 72, "max_position_embeddings": LENGTH, "cross_attention_hidden_size": 40,
        },
    }  # fmt: skip


_SUMMARY = {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3, "min_length": 6}
_FIRST_LAST = {"forced_bos_token_id": 0, "forced_eos_token_id": 2}
_TEXT_LENGTH = {"max_position_embeddings": LENGTH}
_SOUND: dict[str, Any] = {**_BART, "max_target_positions": LENGTH}

# As T5's own config has them.
TASKS: dict[str, dict[str, Any]] = {
    "summarization": {
        "prefix": "summarize: ", "num_beams": 3, "early_stopping": True, "length_penalty": 2.0, "max_length": 13,
        "min_length": 5, "no_repeat_ngram_size": 3,
    },
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 12, "num_beams": 2},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "max_length": 15},
}  # fmt: skip
READS = 90

# What each family's published models ask of `generate`, roughly.
FAMILIES: dict[str, Family] = {
    "t5": Family("t5", {**_T5, "task_specific_params": TASKS}, "t5", reads=READS, seed=1),
    "flan": Family("t5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "t5", seed=1),
    "mt5": Family("mt5", _T5, "t5", {"num_beams": 3, "length_penalty": 0.6, "no_repeat_ngram_size": 2}),
    "umt5": Family("umt5", _T5, "umt5", seed=3),
    "byt5": Family("t5", {**_T5, "d_kv": 12, "feed_forward_proj": "gated-gelu", "num_layers": 4}, "byt5", seed=3),
    "longt5, local": Family("longt5", {**_T5, "local_radius": 3, "encoder_attention_type": "local"}, "t5", seed=4),
    "longt5, global": Family(
        "longt5",
        {**_T5, "local_radius": 3, "global_block_size": 4, "encoder_attention_type": "transient-global"},
        "t5",
    ),
    "bart": Family(
        "bart", {**_BART, **_TEXT_LENGTH}, "bart", {**_SUMMARY, **_FIRST_LAST, "renormalize_logits": True}
    ),
    "mbart": Family(
        "mbart", {**_BART, **_TEXT_LENGTH, "scale_embedding": True}, "mbart50",
        {"num_beams": 5, "early_stopping": True, "forced_eos_token_id": 2}, source_lang="en_XX", target_lang="de_DE",
        seed=2,
    ),
    "marian": Family(
        "marian", {**_BART, **_TEXT_LENGTH, "scale_embedding": True}, "marian",
        {"num_beams": 4, "bad_words_ids": "pad", "forced_eos_token_id": 0}, seed=10,
    ),
    "marian, two vocabularies": Family(
        "marian", {**_BART, **_TEXT_LENGTH, "share_encoder_decoder_embeddings": False}, "marian of two vocabularies",
        {"num_beams": 6}, seed=5,
    ),
    "m2m_100": Family(
        "m2m_100", {**_BART, **_TEXT_LENGTH}, "m2m", {"num_beams": 5, "early_stopping": True, "max_length": 30},
        source_lang="en", target_lang="zu", seed=9,
    ),
    "nllb": Family(
        "m2m_100", {**_BART, **_TEXT_LENGTH}, "nllb", {"max_length": 30}, source_lang="eng_Latn",
        target_lang="zul_Latn", seed=21,
    ),
    "pegasus": Family(
        "pegasus", {**_BART, **_TEXT_LENGTH}, "pegasus",
        {"num_beams": 8, "length_penalty": 0.8, "forced_eos_token_id": 1}, seed=3,
    ),
    "blenderbot": Family(
        "blenderbot", {**_BART, **_TEXT_LENGTH}, "blenderbot",
        {"num_beams": 10, "length_penalty": 0.65, "min_length": 8, "no_repeat_ngram_size": 3,
         "encoder_no_repeat_ngram_size": 3, "forced_eos_token_id": 2}, seed=2,
    ),
    "fsmt": Family("fsmt", {**_BART, **_TEXT_LENGTH, "langs": ["en", "de"]}, "bart", {"num_beams": 5}),
    "t5gemma": Family(
        "t5gemma",
        {"encoder": {**_GEMMA, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2},
         "decoder": {**_GEMMA, "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 3}},
        "t5gemma",
    ),
    # One of its words is looked up in a table of its own, and its image encoder is left out.
    "t5gemma2": Family(
        "t5gemma2",
        {"encoder": {
            "text_config": {**_GEMMA, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3,
                            "layer_types": _ALTERNATING, "query_pre_attn_scalar": 20},
            "vision_config": {**_IMAGES, "model_type": "siglip_vision_model", "image_size": 24, "patch_size": 8},
            "mm_tokens_per_image": 9},
         "decoder": {**_GEMMA, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "sliding_window": 4,
                     "layer_types": _ALTERNATING[:2], "query_pre_attn_scalar": 30}},
        "t5gemma", {"num_beams": 3}, task="text2text-generation",
    ),
    # Its buckets are fewer than the tokens of an answer, and three streams predict.
    "prophetnet": Family(
        "prophetnet",
        {"hidden_size": 48, "num_encoder_layers": 3, "num_decoder_layers": 2, "num_encoder_attention_heads": 3,
         "num_decoder_attention_heads": 4, "encoder_ffn_dim": 56, "decoder_ffn_dim": 72, "ngram": 3, "num_buckets": 6,
         "relative_max_distance": 12, **_TEXT_LENGTH},
        "prophetnet", {"num_beams": 5, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3},
    ),
    "trocr": Family(
        "vision-encoder-decoder", _reading("vit"), "trocr",
        {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3}, _vit_eyes, seed=3,
    ),
    "trocr, deit": Family("vision-encoder-decoder", _reading("deit"), "trocr", {}, _deit_eyes, seed=5),
    "whisper": Family(
        "whisper", {**_SOUND, "num_mel_bins": 12, "max_source_positions": 500}, "whisper.en",
        {"suppress_tokens": [300, 301, 302], "begin_suppress_tokens": [220, 44]}, _whisper_ears, seed=13,
    ),
    "moonshine": Family(
        "moonshine",
        {"hidden_size": 48, "intermediate_size": 56, "encoder_num_hidden_layers": 3, "decoder_num_hidden_layers": 2,
         "encoder_num_attention_heads": 3, "decoder_num_attention_heads": 3, "max_position_embeddings": LENGTH,
         "pad_head_dim_to_multiple_of": 8},
        "t5", {}, _bare_ears, seed=13,
    ),
    "speech_to_text": Family(
        "speech_to_text",
        {**_SOUND, "input_feat_per_channel": 24, "max_source_positions": 600, "conv_channels": 32,
         "conv_kernel_sizes": [3, 3], "num_conv_layers": 2},
        "speech to texts", {"num_beams": 5, "early_stopping": True}, _kaldi_ears, target_lang="de",
        seed=22,
    ),
}  # fmt: skip


def folder_of(family: str, folder: Path, trained: Trained) -> Path:
    """Save a family's model, its tokenizer, and what makes its inputs of sounds or images.

    Args:
        family: in `FAMILIES`.
        folder: to write to.
        trained: what tokenizers are made of.
    """
    chosen = FAMILIES[family]
    tokenizer = BUILDERS[chosen.tokenizer](trained)
    if chosen.reads is not None:
        tokenizer.model_max_length = chosen.reads
    build(chosen, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if chosen.extractor is not None:
        chosen.extractor().save_pretrained(folder)
    return folder


def build(family: Family, tokenizer: Any) -> PreTrainedModel:
    """A model of random weights whose greedy answers wander."""
    torch.manual_seed(family.seed)
    model = _class_of(family).from_config(_config(family, tokenizer))
    with torch.no_grad():
        _randomize(model, family.seed)
    _set_generation(model, family, tokenizer)
    return model.eval()


def auto_class(family: Family) -> Any:
    """What loads a family's folder."""
    if family.model_type == "vision-encoder-decoder":
        return VisionEncoderDecoderModel
    return AutoModelForSeq2SeqLM if family.extractor is None else AutoModelForSpeechSeq2Seq


def ends_of(tokenizer: Any, size: int) -> list[int]:
    """Every token that ends an answer: the tokenizer's own first."""
    return [tokenizer.eos_token_id, *range(ENDS_EVERY, size, ENDS_EVERY)]


def _class_of(family: Family) -> Any:
    if family.model_type != "vision-encoder-decoder":
        return auto_class(family)

    class FromConfig:
        from_config = staticmethod(VisionEncoderDecoderModel)

    return FromConfig


def _config(family: Family, tokenizer: Any) -> Any:
    known = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    # Whisper's have no token of their own for padding.
    known["pad"] = known["eos"] if known["pad"] is None else known["pad"]
    size = max(len(tokenizer), *tokenizer.get_vocab().values()) + 3
    tokens = {f"{name}_token_id": index for name, index in known.items() if index is not None}
    tokens["decoder_start_token_id"] = _start(family, tokenizer)
    settings = dict(family.settings)
    if family.tokenizer.endswith("two vocabularies"):
        settings["decoder_vocab_size"] = tokenizer.pad_token_id + 2
    if family.model_type == "fsmt":
        settings |= {"src_vocab_size": size + 4, "tgt_vocab_size": size}
    elif family.model_type == "vision-encoder-decoder":
        settings["decoder"] = {**settings["decoder"], "vocab_size": size, **tokens}
    elif family.model_type == "t5gemma":
        for side in ("encoder", "decoder"):
            settings[side] = {**settings[side], "vocab_size": size, **tokens}
        settings["vocab_size"] = size
    elif family.model_type == "t5gemma2":
        encoder = {**settings["encoder"], "eoi_token_index": tokenizer.convert_tokens_to_ids(_OWN_WORD)}
        settings["decoder"] = {**settings["decoder"], "vocab_size": size, **tokens}
        settings["encoder"] = {**encoder, "text_config": {**encoder["text_config"], "vocab_size": size, **tokens}}
    else:
        settings["vocab_size"] = size
    return transformers.CONFIG_MAPPING[family.model_type](**settings, **tokens)


def _start(family: Family, tokenizer: Any) -> int:
    if family.model_type == "whisper":
        return int(tokenizer.convert_tokens_to_ids("<|startoftranscript|>"))
    if family.model_type in ("t5gemma", "t5gemma2"):
        return int(tokenizer.bos_token_id)
    by_eos = ("bart", "m2m_100", "fsmt", "speech_to_text", "prophetnet")
    return int(tokenizer.eos_token_id if family.model_type in by_eos else tokenizer.pad_token_id)


_EMBEDDINGS = ("embed_tokens", "shared", "lm_head", "proj_out", "output_projection", "word_embeddings")


def _randomize(model: PreTrainedModel, seed: int) -> None:
    """Let what comes next depend on the source and on where it is, more than on the token before."""
    generator, decoder = torch.Generator().manual_seed(seed), model.config.get_text_config(decoder=True)
    gemma = "gemma" in decoder.model_type
    width = getattr(decoder, "d_model", None) or decoder.hidden_size
    scaled = gemma or getattr(decoder, "scale_embedding", False)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1 and "norm" in name and "weight" in name:
            # Where the embeddings are the head as well, norms of one sign make every token look for itself.
            parameter.copy_(noise.sign() * (1 + 0.2 * noise) - (1 if gemma else 0))
        elif parameter.dim() == 1:
            parameter.copy_(0.2 * noise)
        elif any(part in name for part in _EMBEDDINGS):
            parameter.copy_(0.5 * noise / (width**0.5 if scaled else 1))
        elif "position" in name or "relative" in name:
            parameter.copy_(0.5 * noise)
        else:
            across = any(part in name for part in ("encoder_attn", "EncDecAttention", "cross_attn"))
            parameter.mul_(6 if across else 3)


def _set_generation(model: PreTrainedModel, family: Family, tokenizer: Any) -> None:
    asked = dict(family.generation)
    if asked.get("bad_words_ids") == "pad":
        asked["bad_words_ids"] = [[tokenizer.pad_token_id]]
    size = model.config.get_text_config(decoder=True).vocab_size
    asked["eos_token_id"] = ends_of(tokenizer, size)
    for name, value in asked.items():
        setattr(model.generation_config, name, value)
