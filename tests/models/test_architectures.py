"""What transformers' classes are for: heads that no bundle has are named, and language models saved alone are found."""

from __future__ import annotations

import pytest
import transformers
from transformers import PretrainedConfig
from transformers.models.auto import modeling_auto

from triform.models.architectures import unsupported_head
from triform.models.catalog import form_of, model_class, named_task
from triform.models.encoder.image_tasks import image_task_of
from triform.models.errors import UnsupportedModelError

# transformers' lists of heads that read an image alone, and the words for what such a head is for.
REFUSED = {
    "DEPTH_ESTIMATION": "depth estimation",
    "IMAGE_MATTING": "image matting",
    "IMAGE_TO_IMAGE": "image to image",
    "KEYPOINT_DETECTION": "keypoint detection",
    "KEYPOINT_MATCHING": "keypoint matching",
    "MASKED_IMAGE_MODELING": "masked image modeling",
    "MASK_GENERATION": "mask generation",
    "NORMAL_ESTIMATION": "normal estimation",
    "OBJECT_DETECTION": "object detection",
    "POINTMAP_ESTIMATION": "pointmap estimation",
    "POSE_ESTIMATION": "pose estimation",
    "SEMANTIC_SEGMENTATION": "semantic segmentation",
    "TABLE_RECOGNITION": "table recognition",
    "TEXT_RECOGNITION": "text recognition",
    "VIDEO_CLASSIFICATION": "video classification",
    "ZERO_SHOT_OBJECT_DETECTION": "zero shot object detection",
}
# Lists that have classes in common.
SEGMENTATION = ("IMAGE_SEGMENTATION", "INSTANCE_SEGMENTATION", "UNIVERSAL_SEGMENTATION")


def classes(name: str) -> list[str]:
    listed = getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES").values()
    return [each for names in listed for each in ([names] if isinstance(names, str) else names) if each]


def config(architecture: str) -> PretrainedConfig:
    return PretrainedConfig(architectures=[architecture])


@pytest.mark.parametrize("name", REFUSED)
def test_a_head_is_named_by_the_list_that_has_it(name):
    assert {unsupported_head(config(each)) for each in classes(name)} == {REFUSED[name]}


@pytest.mark.parametrize("name", SEGMENTATION)
def test_a_head_in_several_lists_is_named_by_one_of_them(name):
    words = {listed.lower().replace("_", " ") for listed in SEGMENTATION}
    assert {unsupported_head(config(each)) for each in classes(name)} <= words


def test_all_lists_of_image_heads_are_known():
    """A list that a new transformers adds is refused too, and belongs into the table above."""
    words = ("IMAGE", "SEGMENTATION", "DETECTION", "ESTIMATION", "KEYPOINT", "MASK_", "VIDEO", "RECOGNITION", "OCR")
    exported = {"IMAGE", "IMAGE_CLASSIFICATION", "ZERO_SHOT_IMAGE_CLASSIFICATION"}
    # Models that write texts, which other tests are for; images from text before image, token by token.
    others = {"IMAGE_TEXT_TO_TEXT", "CAUSAL_IMAGE_MODELING"}
    listed = {name.removeprefix("MODEL_FOR_").removesuffix("_MAPPING_NAMES") for name in vars(modeling_auto)
              if name.startswith("MODEL_FOR_") and name.endswith("_MAPPING_NAMES")}  # fmt: skip
    about_images = {name for name in listed if any(word in name for word in words)}
    assert about_images == {*REFUSED, *SEGMENTATION, *exported, *others}


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("BeitForMaskedImageModeling", "masked image modeling"),
        ("ConditionalDetrForSegmentation", "segmentation"),
        ("ViltForImageAndTextRetrieval", "image and text retrieval"),
        ("TvpForVideoGrounding", "video grounding"),
        # Not the question answering that a bundle does.
        ("XLNetForQuestionAnswering", "a task of its own"),
    ],
)
def test_a_head_in_no_list_is_named_by_its_class(architecture, words):
    assert hasattr(transformers, architecture)
    assert unsupported_head(config(architecture)) == words


@pytest.mark.parametrize("architecture", ["MaskFormerModel", "Mask2FormerModel", "OneFormerModel", "PoolFormerModel"])
def test_a_model_without_a_head_is_not_taken_for_one(architecture):
    assert unsupported_head(config(architecture)) is None


@pytest.mark.parametrize("name", ["IMAGE_CLASSIFICATION", "ZERO_SHOT_IMAGE_CLASSIFICATION", "IMAGE"])
def test_heads_that_are_exported_are_not_refused(name):
    assert {unsupported_head(config(each)) for each in classes(name)} == {None}


def test_a_classifier_is_exported_as_one():
    """Every class that transformers lists, whatever it is called."""
    tasks = {image_task_of(config(each)) for each in classes("IMAGE_CLASSIFICATION")}
    assert tasks == {"image-classification"}


@pytest.mark.parametrize(
    ("config_class", "architecture"), [("Emu3TextConfig", "Emu3ForCausalLM"), ("MllamaTextConfig", "MllamaForCausalLM")]
)
def test_the_language_model_of_a_larger_model_alone_is_a_decoder(config_class, architecture):
    """transformers lists its class beside the config of the whole model, and not beside its own."""
    config = getattr(transformers, config_class)(architectures=[architecture])
    assert named_task(config) == "text-generation"
    assert form_of(config, "text-generation") == "decoder"
    assert model_class(config, "text-generation").__name__ == architecture
    with pytest.raises(UnsupportedModelError, match="are not supported as decoders"):
        form_of(getattr(transformers, config_class)(architectures=["LlamaForCausalLM"]), "text-generation")
