"""A checkpoint that no bundle can be like is refused by its config alone, in one line that says what it is."""

from __future__ import annotations

import pytest
import transformers
from transformers import CONFIG_MAPPING

from triform.export.checkpoint.loading import read_config
from triform.export.checkpoint.purpose import decide_purpose
from triform.export.checkpoint.resolve import find_checkpoint
from triform.runtime.errors import UnsupportedError

BERT = {"vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
CLIP_VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2,
               "image_size": 16, "patch_size": 8, "projection_dim": 20}  # fmt: skip


def config_only(folder, architecture, model_type, **settings):
    """A folder with nothing but a config."""
    config = CONFIG_MAPPING[model_type](**settings)
    config.architectures = [architecture]
    config.save_pretrained(folder)
    return folder


def refused(folder, task=None):
    source = find_checkpoint(str(folder), weights=False)
    with pytest.raises(UnsupportedError) as error:
        decide_purpose(source, read_config(source), task)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("architecture", "model_type", "head"),
    [
        ("Wav2Vec2ForXVector", "wav2vec2", "speaker verification"),
        ("ParakeetForTDT", "parakeet_tdt", "speech recognition by TDT"),
        ("SegformerForSemanticSegmentation", "segformer", "semantic segmentation"),
        ("DPTForSemanticSegmentation", "dpt", "semantic segmentation"),
        ("DepthAnythingForDepthEstimation", "depth_anything", "depth estimation"),
        ("YolosForObjectDetection", "yolos", "object detection"),
        ("BertForMultipleChoice", "bert", "multiple choice"),
        ("TapasForQuestionAnswering", "tapas", "table question answering"),
        ("XLNetForQuestionAnswering", "xlnet", "a task of its own"),
    ],
)
def test_heads_of_no_form_are_named(tmp_path, architecture, model_type, head):
    config_only(tmp_path, architecture, model_type)
    assert refused(tmp_path).startswith(f"{architecture} is for {head}, which no bundle does")


@pytest.mark.parametrize(
    ("architecture", "model_type", "task", "gives"),
    [
        ("SegformerForSemanticSegmentation", "segformer", "image-feature-extraction", "its vectors of images"),
        ("BertForMultipleChoice", "bert", "feature-extraction", "its vectors of texts"),
    ],
)
def test_what_is_left_without_the_head_is_named(tmp_path, architecture, model_type, task, gives):
    config_only(tmp_path, architecture, model_type)
    assert refused(tmp_path).endswith(f"--task {task} exports {gives} without that head")
    source = find_checkpoint(str(tmp_path), weights=False)
    assert decide_purpose(source, read_config(source), task).task == task


@pytest.mark.parametrize(
    ("architecture", "model_type", "media", "task"),
    [
        ("LlavaForConditionalGeneration", "llava", "images", "feature-extraction"),
        ("SmolVLMForConditionalGeneration", "smolvlm", "images", "feature-extraction"),
        ("Qwen3VLForConditionalGeneration", "qwen3_vl", "images", "feature-extraction"),
        ("Gemma3ForConditionalGeneration", "gemma3", "images", "text-generation"),
        ("VoxtralForConditionalGeneration", "voxtral", "audio", "feature-extraction"),
        ("Qwen2AudioForConditionalGeneration", "qwen2_audio", "audio", "feature-extraction"),
    ],
)
def test_language_models_of_images_and_sound(tmp_path, architecture, model_type, media, task):
    config_only(tmp_path, architecture, model_type)
    message = refused(tmp_path)
    assert message.startswith(f"{architecture} reads {media}, which a bundle for ")
    assert f"--task {task} exports " in message
    source = find_checkpoint(str(tmp_path), weights=False)
    assert decide_purpose(source, read_config(source), task).task == task


def test_models_that_read_no_text(tmp_path):
    config_only(tmp_path, "Wav2Vec2Model", "wav2vec2")
    assert refused(tmp_path) == "Wav2Vec2Model reads audio, which a bundle for feature-extraction cannot be given"
    assert (
        refused(tmp_path, "feature-extraction") == "Wav2Vec2Model does not read texts, which feature-extraction needs"
    )
    config_only(tmp_path, "Blip2ForConditionalGeneration", "blip-2")
    message = refused(tmp_path, "feature-extraction")
    assert message == "Blip2Model does not read texts alone: it needs pixel_values too"


def test_models_that_read_no_images(tmp_path):
    config_only(tmp_path, "BertModel", "bert")
    message = refused(tmp_path, "image-feature-extraction")
    assert message == "BertModel does not read images, which image-feature-extraction needs"
    assert refused(tmp_path, "image-classification") == "transformers has no bert model for image-classification"


@pytest.mark.parametrize("task", [None, "feature-extraction"])
def test_texts_with_places_are_refused_by_name(tmp_path, task):
    config_only(tmp_path, "MarkupLMForQuestionAnswering", "markuplm")
    message = refused(tmp_path, task)
    named = "MarkupLMForQuestionAnswering" if task is None else "MarkupLMModel"
    assert message.startswith(f"{named} reads the place of each word in its HTML besides its texts")


def test_heads_of_pages_that_no_bundle_has(tmp_path):
    config_only(tmp_path, "BrosSpadeEEForTokenClassification", "bros")
    assert refused(tmp_path).startswith("BrosSpadeEEForTokenClassification is for a task of its own, which no bundle")


def test_weights_of_a_head_decide(tmp_path):
    config = transformers.CLIPVisionConfig(**CLIP_VISION)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    message = refused(tmp_path)
    assert message == (
        "CLIPVisionModelWithProjection has 1 weights that no bundle has a use for, such as visual_projection.weight; "
        "--task image-feature-extraction exports it without them"
    )
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path)
    source = find_checkpoint(str(tmp_path))
    assert decide_purpose(source, read_config(source), None).task == "image-feature-extraction"
