"""The types of transformers that are tried as each form."""

from __future__ import annotations

from transformers.models.auto import modeling_auto as auto

from tests.coverage.type_settings import variants_of

_CAUSAL = frozenset(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_REWRITING = frozenset(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
_SPEECH = frozenset(auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES)
_CTC = frozenset(auto.MODEL_FOR_CTC_MAPPING_NAMES)
_MASKED = frozenset(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
_SMALL_VARIANTS = frozenset({"gemma3_text", "mistral"})
# Samples of the mappings that are too large to try whole: the types that people use most.
_DECODERS_AS_ENCODERS = (
    "qwen3", "gemma3_text", "llama", "qwen2", "mistral", "modernbert-decoder", "gpt2", "qwen3_5_text",
    "gemma3_text+embedding", "mistral+whole",
)  # fmt: skip
_PICTURES = (
    "vit", "deit", "beit", "dinov2", "dinov2_with_registers", "dinov3_vit", "swin", "swinv2", "convnext", "convnextv2",
    "resnet", "regnet", "mobilenet_v1", "mobilenet_v2", "efficientnet", "mobilevit", "levit", "pvt", "cvt",
    "poolformer", "bit", "segformer", "yolos", "detr", "vit_mae", "dpt", "depth_anything", "clip", "siglip", "siglip2",
    "timm_wrapper",
)  # fmt: skip
# What transformers lists beside them: one reads texts and writes sounds, one writes notes.
_NOT_TEXT = frozenset({"dia", "pop2piano"})
# Language models that hear, which transformers lists beside encoder-decoders.
_SOUND_AND_TEXT = frozenset(
    {"audioflamingo3", "glmasr", "moss_transcribe_diarize", "musicflamingo", "nemo_speechlm", "qwen2_audio"}
)
_PICTURES_AND_TEXT = (
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "smolvlm", "idefics3", "llava", "llava_onevision", "paligemma",
    "internvl", "lfm2_vl", "gemma3", "florence2", "blip", "blip-2", "mistral3", "pix2struct", "kosmos-2", "aya_vision",
    "fast_vlm", "granite4_vision", "glm4v", "deepseek_vl", "ovis2",
)  # fmt: skip


def decoders() -> list[str]:
    """Causal language models, without the encoders that transformers lists for their training as decoders."""
    types = _CAUSAL - ((_REWRITING | _SPEECH | _MASKED) - {"reformer"})
    return [*sorted(types), *variants_of(types - _SMALL_VARIANTS)]


def encoders() -> list[str]:
    """Types with a head for masked tokens, classes, tags or answers, and those that only encode texts."""
    headed = _MASKED | set(auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES)
    for mapping in ("SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING"):
        headed |= set(getattr(auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES"))
    return sorted(headed - (_CAUSAL - _MASKED) - (_REWRITING - {"t5", "mt5", "umt5"}) - _SPEECH)


def decoders_as_encoders() -> list[str]:
    """A sample of decoders, whose states are vectors or are classified."""
    return list(_DECODERS_AS_ENCODERS)


def rewriting() -> list[str]:
    """Encoder-decoders of texts."""
    return sorted(_REWRITING - _SPEECH - _SOUND_AND_TEXT)


def speech() -> list[str]:
    """Types that write what they hear, token by token or all at once (CTC)."""
    return sorted((_SPEECH | _CTC) - _NOT_TEXT)


def speech_by_ctc() -> list[str]:
    """Types that write what they hear all at once (CTC)."""
    return sorted(_CTC)


def pictures() -> list[str]:
    """A sample of the types that see pictures."""
    return list(_PICTURES)


def pictures_and_text() -> list[str]:
    """A sample of the types that write about pictures and sounds."""
    seeing = [name for name in _PICTURES_AND_TEXT if name in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]
    return [*seeing, *sorted(_SOUND_AND_TEXT & _REWRITING)]


def hears(name: str) -> bool:
    """Whether a type is a language model that hears."""
    return name in _SOUND_AND_TEXT


def rewrites(name: str) -> bool:
    """Whether a type is an encoder-decoder of texts."""
    return name in _REWRITING


def is_masked(name: str) -> bool:
    """Whether a type has a head for masked tokens."""
    return name in _MASKED
