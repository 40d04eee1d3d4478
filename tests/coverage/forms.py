"""What is tried: for each form, the types, how a checkpoint is made, and how its bundle is compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from tests.checkpoints.ctc import TOKENS, save_ctc_tokenizer
from tests.checkpoints.encoder_decoder_families import FAMILIES, folder_of
from tests.checkpoints.seq2seq_tokenizers import Trained
from tests.coverage import model_types
from tests.coverage.checkpoints import (
    build,
    check_reads_text,
    random_model,
    save,
    save_byte_level_tokenizer,
    save_feature_extractor,
    save_shapes_and_sounds,
    save_word_piece_tokenizer,
)
from tests.coverage.comparisons import compare_decoder, compare_encoder, compare_encoder_decoder, compared_by_export
from tests.coverage.dimensions import SMALL
from tests.coverage.image_settings import IMAGES
from triform.models.architectures import BOXES, more_than_text

# Of types that set no limit themselves.
CONTEXT = 320
# Enough that a difference of scores is no accident.
LABELS = 12


@dataclass(frozen=True)
class Form:
    """One way to try types.

    Attributes:
        title: for the page.
        names: the types and variants to try.
        save: makes a checkpoint of a type in a folder, and returns the task that it is for, where there is a choice.
        compare: compares a bundle with the checkpoint in a folder.
        bundle_form: the form that the bundle must have; None where there should be no bundle.
        other_bundle_forms: the same by name, for types whose bundles have another form.
    """

    title: str
    names: Callable[[], list[str]]
    save: Callable[[str, Path], str]
    compare: Callable[[Path, Path], str]
    bundle_form: str | None
    other_bundle_forms: Mapping[str, str] = field(default_factory=dict)

    def bundle_form_of(self, name: str) -> str | None:
        """The form that the bundle of a type must have."""
        return self.other_bundle_forms.get(name, self.bundle_form)


def _save_decoder(name: str, folder: Path) -> str:
    model = build(name, transformers.AutoModelForCausalLM)
    check_reads_text(model)
    save(model, folder)
    save_byte_level_tokenizer(folder)
    return "text-generation"


def _save_encoder(name: str, folder: Path) -> str:
    """With the head for masked tokens where there is one, else a classifier's, else none."""
    changes: dict[str, Any] = {"mask_token_id": 4} if name in ("esm", "esmc", "eurobert") else {}
    if model_types.is_masked(name):
        auto_class, task = transformers.AutoModelForMaskedLM, "fill-mask"
    elif name in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        auto_class, task = transformers.AutoModelForSequenceClassification, "text-classification"
        changes["num_labels"] = LABELS
    else:
        auto_class, task = transformers.AutoModel, "feature-extraction"
    if name == "reformer":
        changes["is_decoder"] = False
    elif model_types.rewrites(name):
        changes["decoder_start_token_id"] = 0
    model = build(name, auto_class, **changes)
    # Others are refused for what they read besides.
    if more_than_text(type(model), (BOXES,)) is None and name != "bros":
        check_reads_text(model)
    save(model, folder)
    if model_types.rewrites(name):
        save_byte_level_tokenizer(folder, closes_texts=True)
    else:
        save_word_piece_tokenizer(folder)
    if name == "roc_bert":
        save_shapes_and_sounds(folder)
    return task


def _save_classifier(name: str, folder: Path) -> str:
    save(build(name, transformers.AutoModelForSequenceClassification, pad_token_id=0, num_labels=LABELS), folder)
    save_byte_level_tokenizer(folder)
    return "text-classification"


def _save_embedder(name: str, folder: Path) -> str:
    save(build(name, transformers.AutoModel), folder)
    save_byte_level_tokenizer(folder)
    return "feature-extraction"


def _save_encoder_decoder(name: str, folder: Path) -> str:
    """As the other tests have it, or a small config with a byte-level tokenizer."""
    if _save_tested_family(name, folder):
        return "text2text-generation"
    if name == "encoder-decoder":
        model = _pair_of_berts()
    else:
        changes = {} if name.startswith("t5gemma") else {"decoder_start_token_id": 2}
        model = build(name, transformers.AutoModelForSeq2SeqLM, **changes)
    save(model, folder)
    save_byte_level_tokenizer(folder, closes_texts=True)
    return "text2text-generation"


def _pair_of_berts() -> Any:
    sides = [build("bert", transformers.AutoModel).config for _ in range(2)]
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*sides)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    return random_model(config, _Constructed(transformers.EncoderDecoderModel))


def _spoken_pair() -> Any:
    sides = [
        build("wav2vec2", transformers.AutoModel, **_CONVOLUTIONS).config,
        build("bert", transformers.AutoModel).config,
    ]
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(*sides)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    return random_model(config, _Constructed(transformers.SpeechEncoderDecoderModel))


def _save_tested_family(name: str, folder: Path) -> bool:
    """Save the checkpoint of a type that the other tests use, if they have one."""
    family = next((key for key, family in FAMILIES.items() if family.model_type == name), None)
    if family is None:
        return False
    scratch = folder.parent / "trained"
    scratch.mkdir(exist_ok=True)
    folder_of(family, folder, Trained(scratch))
    return True


def _save_speech(name: str, folder: Path) -> str:
    if _save_tested_family(name, folder):
        return "automatic-speech-recognition"
    if name in model_types.speech_by_ctc():
        return _save_speech_by_ctc(name, folder)
    if name == "speech-encoder-decoder":
        model = _spoken_pair()
    else:
        model = build(name, transformers.AutoModelForSpeechSeq2Seq, **_audio_settings(name))
    save(model, folder)
    save_byte_level_tokenizer(folder, closes_texts=True)
    save_feature_extractor(name, folder)
    return "automatic-speech-recognition"


# The convolutions over a waveform, 160 samples to a frame.
_CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": [32, 32], "conv_stride": [16, 10], "conv_kernel": [20, 10], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_WAVEFORMS = (
    "wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "sew", "sew-d", "wav2vec2-conformer",
)  # fmt: skip
_BANDS = {"num_mel_bins": SMALL["num_mel_bins"]}
_SMALL_ENCODER = {
    "hidden_size": 96, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 80, "conv_kernel_size": 5, "subsampling_conv_channels": 8,
}  # fmt: skip
# Where a config says how many bands of features it reads.
_BANDS_OF: dict[str, dict[str, Any]] = {
    "wav2vec2-bert": {"feature_projection_input_dim": 2 * SMALL["num_mel_bins"]},
    "parakeet_ctc": {"encoder_config": {**_SMALL_ENCODER, **_BANDS, "subsampling_factor": 4}},
    "omniasr_ctc": {
        "audio_config": {
            "hidden_size": 96,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "intermediate_size": 80,
            **{key: value for key, value in _CONVOLUTIONS.items() if key != "num_feat_extract_layers"},
        }
    },
    "speecht5": _CONVOLUTIONS,
    "lasr_ctc": {"encoder_config": {**_SMALL_ENCODER, **_BANDS}},
    "granite_speech5_ctc": {
        "encoder_config": {**_SMALL_ENCODER, **_BANDS, "vocab_size": len(TOKENS), "context_size": 24},
    },
}


def _audio_settings(name: str) -> dict[str, Any]:
    return _CONVOLUTIONS if name in _WAVEFORMS else _BANDS_OF.get(name, {})


def _save_speech_by_ctc(name: str, folder: Path) -> str:
    folder.mkdir()
    save_ctc_tokenizer(folder)
    save(build(name, transformers.AutoModelForCTC, **_audio_settings(name), vocab_size=len(TOKENS)), folder)
    save_feature_extractor(name, folder)
    return "automatic-speech-recognition"


def _save_pictures_and_text(name: str, folder: Path) -> str:
    hears = model_types.hears(name)
    auto_class = transformers.AutoModelForSeq2SeqLM if hears else transformers.AutoModelForImageTextToText
    save(build(name, auto_class), folder)
    save_byte_level_tokenizer(folder)
    return ""


class _Constructed:
    """An auto class for a type of several classes."""

    def __init__(self, model_class: Any) -> None:
        self._class = model_class

    def from_config(self, config: Any) -> Any:
        return self._class(config)


# By order: the head of the first task that transformers has for a type.
_PICTURE_HEADS = (
    ("image-classification", "IMAGE_CLASSIFICATION", "AutoModelForImageClassification"),
    ("zero-shot-image-classification", "ZERO_SHOT_IMAGE_CLASSIFICATION", "AutoModelForZeroShotImageClassification"),
    ("object-detection", "OBJECT_DETECTION", "AutoModelForObjectDetection"),
    ("semantic-segmentation", "SEMANTIC_SEGMENTATION", "AutoModelForSemanticSegmentation"),
    ("depth-estimation", "DEPTH_ESTIMATION", "AutoModelForDepthEstimation"),
)


def _save_pictures(name: str, folder: Path) -> str:
    task, auto_class = "image-feature-extraction", transformers.AutoModel
    for head, mapping, class_name in _PICTURE_HEADS:
        classes = getattr(auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES").get(name)
        if classes is not None:
            first = classes if isinstance(classes, str) else classes[0]
            several = head == "image-classification" and not isinstance(classes, str)
            task = head
            auto_class = _Constructed(getattr(transformers, first)) if several else getattr(transformers, class_name)
            break
    settings = IMAGES.get(name, {})
    save(build(name, auto_class, **settings), folder)
    side = settings.get("image_size", 32)
    _save_image_processor(name, folder, side if isinstance(side, int) else side[0])
    if task.startswith("zero-shot"):
        save_byte_level_tokenizer(folder)
    return task


def _save_image_processor(name: str, folder: Path, side: int) -> None:
    # Where transformers names none, checkpoints have the one of dinov2.
    known = IMAGE_PROCESSOR_MAPPING_NAMES.get(name, "BitImageProcessor")
    kinds = known.values() if isinstance(known, dict) else [known] if isinstance(known, str) else known
    class_name = next(kind for kind in kinds if kind)
    if class_name == "DINOv3ViTImageProcessor":
        # The class itself needs torchvision.
        settings = {"image_processor_type": class_name, "size": {"height": side, "width": side}}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return
    processor = getattr(transformers, class_name.replace("Fast", "") + "Pil", None) or getattr(transformers, class_name)
    if class_name.startswith("Siglip2"):
        processor(patch_size=SMALL["patch_size"], max_num_patches=29).save_pretrained(folder)
        return
    square, shortest = {"height": side, "width": side}, {"shortest_edge": side}
    try:
        processor(size=shortest if "ConvNext" in class_name else square, crop_size=square).save_pretrained(folder)
    except Exception:  # a processor that takes only the other kind of size
        processor(size=shortest, crop_size=square).save_pretrained(folder)


FORMS: dict[str, Form] = {
    "decoder": Form("Decoders", model_types.decoders, _save_decoder, compare_decoder, "decoder"),
    "encoder": Form("Encoders of texts", model_types.encoders, _save_encoder, compare_encoder, "encoder"),
    "classifier": Form(
        "Decoders as classifiers (a sample)", model_types.decoders_as_encoders, _save_classifier, compare_encoder,
        "encoder",
    ),
    "embedder": Form(
        "Decoders as embedders (a sample)", model_types.decoders_as_encoders, _save_embedder, compare_encoder,
        "encoder",
    ),
    "encoder-decoder": Form(
        "Encoder-decoders of texts", model_types.rewriting, _save_encoder_decoder, compare_encoder_decoder,
        "encoder-decoder",
    ),
    "speech": Form(
        "Speech to text", model_types.speech, _save_speech, compared_by_export, "encoder-decoder",
        dict.fromkeys(model_types.speech_by_ctc(), "encoder"),
    ),
    "image": Form("Images (a sample)", model_types.pictures, _save_pictures, compared_by_export, "encoder"),
    "image-text": Form(
        "Language models that see or hear (a sample)", model_types.pictures_and_text, _save_pictures_and_text,
        compared_by_export, None,
    ),
}  # fmt: skip
