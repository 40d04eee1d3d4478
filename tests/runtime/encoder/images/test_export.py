"""Exporting models that read images: what is recorded, and what is refused."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, ViTConfig, ViTImageProcessorPil, ViTMAEConfig, ViTMAEModel

from tests.checkpoints.images import siglip2_folder, vision_folder
from triform.cli.main import run
from triform.export.options import ExportOptions
from triform.export.pipeline import export, plan
from triform.models.catalog import form_of
from triform.models.encoder.image_tasks import image_task_of
from triform.models.errors import UnsupportedModelError
from triform.runtime.errors import ExportError, InputError, TriformError, UnsupportedError
from triform.runtime.extras import install_command


def refusal(folder, target, **options):
    with pytest.raises(TriformError) as caught:
        export(str(folder), target / "bundle", ExportOptions(quantize="none", **options))
    assert "\n" not in str(caught.value)
    assert not (target / "bundle").exists()
    return caught.value


@pytest.fixture
def vit_folder(tmp_path):
    return vision_folder(tmp_path / "vit", "vit", "ViTForImageClassification", num_hidden_layers=1)


@pytest.mark.parametrize(
    ("architecture", "model_type", "task"),
    [
        ("ViTForImageClassification", "vit", "image-classification"),
        ("DeiTForImageClassificationWithTeacher", "deit", "image-classification"),
        ("CLIPForImageClassification", "clip", "image-classification"),
        ("ViTModel", "vit", "image-feature-extraction"),
        ("Dinov2Model", "dinov2", "image-feature-extraction"),
        ("CLIPVisionModel", "clip_vision_model", "image-feature-extraction"),
        ("SiglipVisionModel", "siglip_vision_model", "image-feature-extraction"),
        ("CLIPModel", "clip", "zero-shot-image-classification"),
        ("SiglipModel", "siglip", "zero-shot-image-classification"),
        ("BertModel", "bert", None),
        ("LlamaForCausalLM", "llama", None),
        (None, "vit", "image-feature-extraction"),
        (None, "clip", "zero-shot-image-classification"),
        (None, "bert", None),
    ],
)
def test_the_task_is_what_the_class_was_made_for(architecture, model_type, task):
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[model_type]()
    config.architectures = None if architecture is None else [architecture]
    assert image_task_of(config) == task


def test_outputs_that_are_random_are_refused(tmp_path):
    settings = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 3}
    config = ViTMAEConfig(
        **settings, image_size=16, patch_size=4, decoder_hidden_size=16, decoder_num_attention_heads=2
    )
    ViTMAEModel(config).save_pretrained(tmp_path / "model")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    assert "its outputs for an image are random" in str(refusal(tmp_path / "model", tmp_path))


def test_the_plan_needs_no_weights(vit_folder):
    (vit_folder / "model.safetensors").write_bytes(b"damaged")
    found = dict(plan(str(vit_folder), ExportOptions()))
    assert found["task"] == "image-classification"
    assert (found["layers"], found["hidden size"], found["weights"]) == ("1", "48", "int8")


def test_the_report_tells_of_both_towers(exported_image_model):
    content = json.loads((exported_image_model("clip")[1] / "manifest.json").read_text())
    assert set(content["graphs"]) == {"encoder", "image"}
    assert content["graphs"]["image"]["inputs"][0]["shape"] == ["batch", 3, 28, 28]
    assert content["graphs"]["encoder"]["operators"]["MultiHeadAttention"] == 2
    parity = content["export"]["encoder_parity"]
    assert 0 < parity["batch"] < parity["tolerance"]
    assert content["encoder"]["embedding"]["normalized"]


def test_padding_that_is_read_and_before_the_text(tmp_path):
    folder = siglip2_folder(tmp_path / "siglip2")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    assert "its tokenizer puts on the left; that is supported on the right only" in str(refusal(folder, tmp_path))


def test_without_an_image_processor(vit_folder, tmp_path):
    (vit_folder / "preprocessor_config.json").unlink()
    assert "vit has no usable image processor" in str(refusal(vit_folder, tmp_path))


def test_an_image_processor_that_cannot_be_described(vit_folder, tmp_path):
    ViTImageProcessorPil(size={"shortest_edge": 40}).save_pretrained(vit_folder)
    assert isinstance(refusal(vit_folder, tmp_path), UnsupportedError)


def test_an_image_processor_for_another_size(vit_folder, tmp_path):
    ViTImageProcessorPil(size={"height": 40, "width": 24}).save_pretrained(vit_folder)
    assert "does not take the 3 x 40 x 24 pixels of its image processor: " in str(refusal(vit_folder, tmp_path))


def test_a_model_of_gray_images(tmp_path):
    folder = vision_folder(tmp_path / "gray", "vit", "ViTForImageClassification", num_hidden_layers=1, num_channels=1)
    assert "does not take the 3 x 24 x 40 pixels of its image processor: " in str(refusal(folder, tmp_path))


def test_a_head_without_weights(vit_folder, tmp_path):
    weights = load_file(vit_folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, vit_folder / "model.safetensors", metadata={"format": "pt"})
    error = refusal(vit_folder, tmp_path)
    assert isinstance(error, ExportError)
    assert "lacks 1 weights its config asks for, such as classifier.weight" in str(error)


def test_hidden_states_are_not_for_two_towers(exported_image_model, tmp_path):
    error = refusal(exported_image_model("clip")[0], tmp_path, hidden_states=True)
    assert isinstance(error, InputError)


def test_a_task_the_model_is_not_for(vit_folder, exported_image_model, tmp_path):
    assert "vit" in str(refusal(vit_folder, tmp_path, task="zero-shot-image-classification"))
    assert "image-classification" in str(refusal(vit_folder, tmp_path, task="image-segmentation"))


def test_a_head_that_reads_an_image_and_a_text_at_once_is_refused():
    """BLIP-2's for retrieval has one vector for each of its queries, and a head for matching besides."""
    config = Blip2Config(architectures=["Blip2ForImageTextRetrieval"])
    with pytest.raises(
        UnsupportedModelError,
        match="Blip2ForImageTextRetrieval does not give an image and a text a vector each to compare",
    ):
        form_of(config, image_task_of(config))


def test_exporting_without_pillow(vit_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("triform.runtime.media.image.find_spec", lambda name: None)
    assert run(["export", str(vit_folder), str(tmp_path / "bundle")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: images need Pillow: {install_command('image')}"


def test_one_label_has_a_probability_of_its_own(exported_image_model):
    content = json.loads((exported_image_model("deit")[1] / "manifest.json").read_text())
    assert content["encoder"]["problem_type"] == "multi_label_classification"
    assert ViTConfig(num_labels=1).problem_type is None
